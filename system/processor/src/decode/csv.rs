//! One CSV line (RFC 4180): quotes, doubled quotes, an optional line end.

use super::{BadRecord, Scalar};

pub(super) fn fields(line: &str, columns: &[String], wanted: &[&str]) -> Result<Vec<Scalar>, BadRecord> {
    let cells = split(line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l)))?;
    if cells.len() != columns.len() {
        let what = format!("{} columns where {} were expected", cells.len(), columns.len());
        return Err(BadRecord::Undecodable(what));
    }
    let cell = |name: &&str| {
        let found = columns.iter().zip(&cells).find(|(column, _)| column == name);
        found.map_or(Scalar::Null, |(_, cell)| Scalar::Text(cell.clone()))
    };
    Ok(wanted.iter().map(cell).collect())
}

fn split(line: &str) -> Result<Vec<String>, BadRecord> {
    let bad = |what: &str| BadRecord::Undecodable(what.to_owned());
    let mut cells = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        let mut cell = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') if chars.peek() == Some(&'"') => {
                        chars.next();
                        cell.push('"');
                    }
                    Some('"') => break,
                    Some(c) => cell.push(c),
                    None => return Err(bad("unterminated quote")),
                }
            }
        } else {
            while let Some(c) = chars.peek().copied().filter(|c| *c != ',') {
                if matches!(c, '"' | '\n' | '\r') {
                    return Err(bad("quote or line end inside a bare cell"));
                }
                cell.push(c);
                chars.next();
            }
        }
        cells.push(cell);
        match chars.next() {
            Some(',') => {}
            None => return Ok(cells),
            Some(_) => return Err(bad("text after a closing quote")),
        }
    }
}
