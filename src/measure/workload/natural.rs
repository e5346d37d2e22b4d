//! Prompts in natural language, generated: texts with a question about them, and requests of many kinds.
//!
//! Nothing is taken from any work: sentences, words and names are this crate's material, and what a prompt says is drawn.
//! There is no answer to compare with; whether an answer is the model's own is for the scorer to say.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng as _;

use super::expand::Writer;

/// The words before the number of a salt.
const KINDS: [&str; 12] = [
    "Document", "Note", "File", "Ticket", "Record", "Case", "Message", "Entry", "Sheet", "Draft", "Copy",
    "Order",
];

/// Draws the beginning of a prompt that no other has, for example `Document 4f9c2a01b7d35e68: `.
///
/// It stands at the front, so that neither a cache of prefixes nor stored answers of a known text are of any use.
pub fn salt(generator: &mut ChaCha12Rng) -> String {
    let number = generator.next_u64();
    // The low bits choose the word too; 60 bits are left for the number to be one of its own.
    format!("{} {number:016x}: ", KINDS[(number % KINDS.len() as u64) as usize])
}

/// Writes a text of several paragraphs, and a question or task about it.
pub fn passage(generator: &mut ChaCha12Rng) -> String {
    passage_by(&mut Writer::new(generator))
}

/// Writes a request: to write, plan, calculate, program, extract or transform.
pub fn instruction(generator: &mut ChaCha12Rng) -> String {
    instruction_by(&mut Writer::new(generator))
}

fn passage_by(writer: &mut Writer<'_>) -> String {
    let topic = writer.phrase("topic").to_lowercase();
    let mut blocks = Vec::new();
    let title = writer.sentence(&format!("{topic}.title"));
    let count = 3 + writer.below(6);
    let planted = (writer.below(2) == 0).then(|| writer.below(count));
    for number in 0..count {
        let mut sentences = Vec::new();
        for _ in 0..3 + writer.below(4) {
            let section = if writer.below(6) == 0 { "glue" } else { topic.as_str() };
            sentences.push(writer.sentence(section));
        }
        if planted == Some(number) {
            let at = writer.below(sentences.len() + 1);
            sentences.insert(at, writer.sentence("fact"));
        }
        blocks.push(sentences.join(" "));
    }
    let question = match planted {
        Some(_) if writer.below(3) < 2 => writer.sentence("passage.found"),
        _ => writer.sentence("passage.question"),
    };
    match writer.below(4) {
        // The task first, the text after it.
        0 => blocks.splice(0..0, [question, title]).for_each(drop),
        1 => {
            let before = writer.sentence("passage.before");
            blocks.splice(0..0, [before, title]).for_each(drop);
            blocks.push(question);
        }
        _ => {
            blocks.insert(0, title);
            blocks.push(question);
        }
    }
    style(writer, &mut blocks);
    blocks.join("\n\n")
}

fn instruction_by(writer: &mut Writer<'_>) -> String {
    let mut blocks = Vec::new();
    match writer.below(7) {
        0 => blocks.push(writer.sentence("write")),
        1 => blocks.push(writer.sentence("plan")),
        2 => blocks.push(writer.sentence("sum")),
        3 => blocks.push(writer.sentence("code")),
        4 => {
            blocks.push(writer.sentence("record.before"));
            let count = 4 + writer.below(12);
            // Mixed forms, as notes have them.
            let lines: Vec<String> = (0..count).map(|_| writer.sentence("record.line")).collect();
            blocks.push(lines.join("\n"));
            blocks.push(writer.sentence("extract.task"));
        }
        5 => {
            let topic = writer.phrase("topic").to_lowercase();
            blocks.push(writer.sentence("change.task"));
            let count = 2 + writer.below(5);
            let sentences: Vec<String> = (0..count).map(|_| writer.sentence(&topic)).collect();
            blocks.push(sentences.join(" "));
        }
        // Two things in one request, as people ask.
        _ => {
            let kinds = ["write", "plan", "sum"];
            let first = writer.below(kinds.len());
            let second = (first + 1 + writer.below(kinds.len() - 1)) % kinds.len();
            blocks.push(writer.sentence(kinds[first]));
            let second = writer.sentence(kinds[second]);
            blocks.push(format!("And then, separately: {second}"));
        }
    }
    style(writer, &mut blocks);
    blocks.join("\n\n")
}

/// Adds none to three wishes about the answer.
fn style(writer: &mut Writer<'_>, blocks: &mut Vec<String>) {
    let count = writer.below(4);
    if count > 0 {
        let wishes: Vec<String> = (0..count).map(|_| writer.sentence("style")).collect();
        blocks.push(wishes.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_names_its_texts() {
        let mut generator = ChaCha12Rng::seed_from_u64(11);
        let mut texts = Vec::new();
        for _ in 0..3 {
            texts.push(passage(&mut generator));
            texts.extend((0..4).map(|_| instruction(&mut generator)));
        }
        insta::assert_snapshot!(texts.join("\n\n=====\n\n"));
    }

    #[test]
    fn there_are_thousands_of_shapes() {
        for (write, least) in [(passage_by as fn(&mut Writer<'_>) -> String, 4_990), (instruction_by, 3_500)]
        {
            let mut generator = ChaCha12Rng::seed_from_u64(2);
            let mut shapes = BTreeSet::new();
            let mut texts = BTreeSet::new();
            for _ in 0..5_000 {
                let mut writer = Writer::new(&mut generator);
                let text = write(&mut writer);
                assert!((40..16_000).contains(&text.len()), "{text}");
                assert!(!text.contains(['{', '}']) || text.contains("```"), "{text}");
                assert!(!text.contains("  ") || text.contains("```"), "{text}");
                shapes.insert(writer.shape);
                texts.insert(text);
            }
            assert!(shapes.len() >= least, "{} shapes", shapes.len());
            assert!(texts.len() >= 4_990, "{} texts", texts.len());
        }
    }
}
