//! What the user may have meant.

/// ` (did you mean `x`?)`, or nothing if no name is near.
pub fn sentence(word: &str, names: &[&str]) -> String {
    nearest(word, names).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// The nearest name by edit distance, or one that `word` starts.
pub fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    if word.len() >= 3
        && let Some(name) = names.iter().find(|name| name.starts_with(word))
    {
        return Some(name);
    }
    let limit = if word.chars().count() < 5 { 1 } else { (word.chars().count() / 3).max(2) };
    names.iter().map(|name| (distance(word, name), *name)).filter(|(d, _)| *d <= limit).min().map(|(_, name)| name)
}

/// Edit distance in characters; swapping two neighbours, the commonest slip, counts as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = substituted.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_not() {
        let names = ["smoke", "swarm", "crash_restart", "power_loss"];
        assert_eq!(nearest("swram", &names), Some("swarm"));
        assert_eq!(nearest("smok", &names), Some("smoke"));
        assert_eq!(nearest("crash-restart", &names), Some("crash_restart"));
        assert_eq!(nearest("powerloss", &names), Some("power_loss"));
        assert_eq!(nearest("frobnicate", &names), None);
        assert_eq!(nearest("frob", &["job"]), None);
    }
}
