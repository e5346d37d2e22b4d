//! The leaderboard in a terminal.

use comfy_table::{Cell, Color, ColumnConstraint};

use super::text::{RowLines, TextStyle, coloured, excerpt, plain, ratio, render, right, short_hotkey, table};
use crate::model::{LeaderboardRow, Standing};

/// From this width on, in columns, the image has a column of its own; below it stands under the miner.
const WIDE: u16 = 130;
/// Longest image name shown, in characters; the end of a name says more than its host.
const IMAGE_CHARACTERS: usize = 30;

/// The leaderboard: place, miner, image, score, speed-ups, standing and the reason in words.
pub fn leaderboard_table(rows: &[LeaderboardRow], style: TextStyle) -> String {
    let is_wide = style.width.is_none_or(|width| width >= WIDE);
    let mut out = table(style, RowLines::Many);
    let mut header = vec![right("#"), Cell::new("miner")];
    if is_wide {
        header.push(Cell::new("image"));
    }
    header.extend([right("score"), right("e2e"), right("ttft"), Cell::new("standing"), Cell::new("reason")]);
    let columns = header.len();
    out.set_header(header);
    let fixed = std::iter::repeat_n(ColumnConstraint::ContentWidth, columns - 1);
    for row in rows {
        let miner = short_hotkey(&row.hotkey);
        let image = image(row);
        let mut cells = vec![right(row.rank)];
        if is_wide {
            cells.extend([Cell::new(miner), Cell::new(image)]);
        } else {
            cells.push(Cell::new(format!("{miner}\n{image}")));
        }
        cells.extend([
            right(format!("{:.4}", row.score)),
            right(ratio(row.speedup_e2e)),
            right(ratio(row.speedup_ttft)),
            coloured(row.standing, colour(row.standing)),
            Cell::new(reason(row)),
        ]);
        out.add_row(cells);
    }
    out.set_constraints(fixed.chain([ColumnConstraint::LowerBoundary(comfy_table::Width::Fixed(20))]));
    render(&out)
}

fn image(row: &LeaderboardRow) -> String {
    let name = plain(row.image.as_deref().unwrap_or("-"));
    let excess = name.chars().count().saturating_sub(IMAGE_CHARACTERS);
    if excess == 0 {
        return name;
    }
    ['…'].into_iter().chain(name.chars().skip(excess + 1)).collect()
}

fn reason(row: &LeaderboardRow) -> String {
    let words = excerpt(&row.detail, 300);
    if words.is_empty() { excerpt(&row.reason, 80) } else { words }
}

fn colour(standing: Standing) -> Color {
    match standing {
        Standing::Scored => Color::Green,
        Standing::Disqualified | Standing::Failed => Color::Red,
        Standing::Held => Color::Yellow,
        Standing::NotFaster | Standing::Ignored => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::leaderboard;
    use super::super::text::Paint;
    use super::*;

    #[test]
    fn at_three_widths() {
        let style = |width| TextStyle { width, paint: Paint::Plain };
        insta::assert_snapshot!("width_100", leaderboard_table(&leaderboard(), style(Some(100))));
        insta::assert_snapshot!("width_160", leaderboard_table(&leaderboard(), style(Some(160))));
        insta::assert_snapshot!("no_width", leaderboard_table(&leaderboard(), style(None)));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [100, 130, 160] {
            let text =
                leaderboard_table(&leaderboard(), TextStyle { width: Some(width), paint: Paint::Plain });
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(usize::from(width)), "{widest:?} at {width}");
        }
    }

    #[test]
    fn escapes_are_only_ours() {
        let plain = leaderboard_table(&leaderboard(), TextStyle::PLAIN);
        assert!(!plain.contains('\u{1b}'));
        let style = TextStyle { width: Some(100), paint: Paint::Ansi };
        let ansi = leaderboard_table(&leaderboard(), style);
        assert!(ansi.contains('\u{1b}') && !ansi.contains("\u{1b}]0;pwned"));
    }
}
