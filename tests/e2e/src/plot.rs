//! A picture of many outages: one dot for each run, on a logarithmic scale, one row for each fault and system.

use std::fmt::Write;

/// A row: what it is, and its outages in milliseconds.
pub type Row = (String, Vec<f64>);

const LEFT: f64 = 210.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 26.0;
/// The scale: 0.1 s to 100 s.
const FROM: f64 = 100.0;
const DECADES: f64 = 3.0;

/// An SVG that needs nothing beside itself.
pub fn svg(title: &str, rows: &[Row]) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a dozen rows")]
    let tall = rows.len() as f64 * HEIGHT + 70.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {tall}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"22\" font-weight=\"bold\">{title}</text>\n"
    );
    for (ms, label) in [
        (100.0, "0.1 s"),
        (1_000.0, "1 s"),
        (10_000.0, "10 s"),
        (100_000.0, "100 s"),
    ] {
        let (x, bottom) = (across(ms), tall - 26.0);
        let _ = writeln!(
            text,
            "<line x1=\"{x:.0}\" y1=\"36\" x2=\"{x:.0}\" y2=\"{bottom:.0}\" stroke=\"#ccc\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            bottom + 16.0
        );
    }
    let mut y = 52.0;
    for (name, outages) in rows {
        let _ = writeln!(text, "<text x=\"10\" y=\"{:.0}\">{name}</text>", y + 4.0);
        for ms in outages {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{y:.0}\" r=\"4\" fill=\"#2563eb\" fill-opacity=\"0.45\"/>",
                across(*ms)
            );
        }
        y += HEIGHT;
    }
    text.push_str("</svg>\n");
    text
}

fn across(ms: f64) -> f64 {
    LEFT + (ms.max(FROM) / FROM).log10().min(DECADES) / DECADES * WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_a_dot_inside_the_picture() {
        let picture = svg("t", &[("a".into(), vec![0.0, 1_000.0, 1e9]), ("b".into(), vec![])]);
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(across(0.0) == LEFT && across(1e9) == LEFT + WIDTH);
        assert!(picture.contains(">a<") && picture.contains(">b<"));
    }
}
