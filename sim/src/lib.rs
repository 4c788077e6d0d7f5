//! streamproof
