//! One CSV line (RFC 4180): quotes, doubled quotes, an optional line end.

use std::borrow::Cow;

use super::{BadRecord, Scalar};

pub(super) fn fields<'a, const N: usize>(
    line: &'a str,
    columns: &[String],
    wanted: &[Option<&str>; N],
) -> Result<[Scalar<'a>; N], BadRecord> {
    let cells = split(line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l)))?;
    if cells.len() != columns.len() {
        let what = format!("{} columns where {} were expected", cells.len(), columns.len());
        return Err(BadRecord::Undecodable(what));
    }
    Ok(wanted.map(|name| {
        let found = columns.iter().zip(&cells).find(|(column, _)| Some(column.as_str()) == name);
        found.map_or(Scalar::Null, |(_, cell)| Scalar::Text(cell.clone()))
    }))
}

fn split(line: &str) -> Result<Vec<Cow<'_, str>>, BadRecord> {
    if !line.contains(['"', '\n', '\r']) {
        return Ok(line.split(',').map(Cow::Borrowed).collect());
    }
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
        cells.push(cell.into());
        match chars.next() {
            Some(',') => {}
            None => return Ok(cells),
            Some(_) => return Err(bad("text after a closing quote")),
        }
    }
}
