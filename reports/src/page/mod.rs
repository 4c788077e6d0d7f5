//! The report: one HTML file that needs nothing but itself, for one failure, several, or a whole sweep.
//!
//! Guarantees: no request leaves the page (its policy forbids them), it reads in light and dark, by keyboard and on paper,
//! and each picture has its facts beside it as text. Pictures are drawn by the page's own script from [`Picture`] and
//! [`Sweep`], which are embedded as JSON; what is not visible is not drawn, so that the number of operations costs little.
//!
//! ```text
//! Case + Scene -> Picture \
//!                          > JSON -> page.html (page.css, page.js inlined) -> one file
//! SeedReports  -> Sweep   /
//! ```

mod lanes;
mod perfetto;
mod picture;
mod shiviz;
mod sweep;
mod tables;

pub use perfetto::perfetto;
pub use picture::{Picture, Scenery};
pub use shiviz::shiviz;
pub use sweep::{Sweep, SweepBuilder};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole file. `title` is for the window and the heading.
pub fn render(title: &str, sweep: Option<&Sweep>, pictures: &[Picture]) -> String {
    let mut data = String::new();
    if let Some(sweep) = sweep {
        data.push_str(&script("sweep", sweep));
    }
    for (i, picture) in pictures.iter().enumerate() {
        data.push_str(&script(&format!("run-{i}"), picture));
    }
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = PAGE;
    // Each place is filled once, from the page's own text: nothing that is filled in is looked at again.
    for (place, text) in
        [("{{title}}", escape(title)), ("{{style}}", STYLE.into()), ("{{heading}}", escape(title)), ("{{data}}", data)]
    {
        let (before, after) = rest.split_once(place).expect("the page has its places, in this order");
        page.push_str(before);
        page.push_str(&text);
        rest = after;
    }
    let (before, after) = rest.split_once("{{script}}").expect("the page has a place for its script");
    page.push_str(before);
    page.push_str(SCRIPT);
    page.push_str(after);
    page
}

fn script(id: &str, value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string(value).expect("pictures serialise");
    // Inside a script element only `<` could end it.
    format!("<script type=\"application/json\" id=\"{id}\">{}</script>\n", json.replace('<', "\\u003c"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let mut builder = SweepBuilder::default();
        let evil = "</script><script>alert(1)</script>{{script}}";
        let mut report = crate::SeedReport::unfinished(evil, 1, crate::Verdict::HarnessFailed, evil);
        report.note = Some(evil.into());
        builder.add(&report);
        let page = render(evil, Some(&builder.sweep(Vec::new(), 10)), &[]);
        assert!(!page.contains("<script>alert"), "escaped everywhere");
        assert!(page.contains("&lt;/script&gt;") && page.contains("\\u003c/script>"));
        assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched from anywhere");
        assert!(page.contains("default-src 'none'"));
    }
}
