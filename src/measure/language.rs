//! The small language that the reference model speaks: a grammar of our own that writes prompts and their answers.
//!
//! A prompt is a few plain English sentences about people, animals, places and things that do not exist, and one
//! request. Its answer follows from the prompt up to the choice between a few synonyms, of which the first is the
//! usual one: a model trained on it has peaked distributions that are not one-hot, and it copies names and phrases
//! from the prompt, which is what prompt-lookup speculation lives on. Each prompt begins with a line of its own
//! (a number or a name drawn at random), so that no two prompts share a prefix beyond the chat template.
//!
//! The same text trains the model (`cacheon reference corpus`) and drives the benchmark on the embedded default; the
//! seeds differ. Absent on purpose: tokens, files, and any claim that the language is good for another purpose.

use rand_chacha::rand_core::Rng;

/// One prompt and an answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// What the user says: 150 to 450 characters, of which the first line is unique.
    pub prompt: String,
    /// What the assistant says: 120 to 330 characters.
    pub answer: String,
}

/// Writes the next dialogue of the generator's sequence: the same generator state gives the same dialogue.
pub fn dialogue<R: Rng>(rng: &mut R) -> Dialogue {
    let mut teller = Teller { rng };
    let salt = teller.salt();
    let aside = teller.aside();
    let scene = *teller.one_of(&SCENES);
    let Dialogue { prompt, answer } = scene(&mut teller);
    Dialogue { prompt: format!("{salt} {aside}{prompt}"), answer }
}

/// Writes the next prompt of the generator's sequence.
pub fn prompt<R: Rng>(rng: &mut R) -> String {
    dialogue(rng).prompt
}

type Scene = fn(&mut Teller<'_>) -> Dialogue;

const SCENES: [Scene; 8] = [portrait, message, journey, shop, fable, weather, recipe, household];

const SYLLABLES: [&str; 36] = [
    "ba", "bel", "dan", "do", "fa", "fen", "gar", "ha", "il", "jo", "ka", "kel", "la", "lin", "lo", "ma",
    "mi", "mor", "na", "né", "no", "or", "pa", "pi", "ra", "ri", "san", "si", "ta", "tel", "to", "tö", "va",
    "vin", "wen", "zu",
];
const TRADES: [&str; 14] = [
    "baker", "miller", "weaver", "potter", "sailor", "teacher", "painter", "farmer", "tailor", "gardener",
    "smith", "doctor", "singer", "cook",
];
const ANIMALS: [&str; 14] = [
    "goat", "dog", "cat", "horse", "donkey", "goose", "duck", "hen", "sheep", "rabbit", "fox", "pony", "pig",
    "turtle",
];
const COLOURS: [&str; 10] =
    ["red", "blue", "green", "yellow", "white", "black", "brown", "grey", "golden", "silver"];
const THINGS: [&str; 14] = [
    "lantern", "basket", "kettle", "hammer", "mirror", "ladder", "drum", "clock", "coat", "bell", "bucket",
    "blanket", "key", "lamp",
];
const SPOTS: [&str; 12] = [
    "market", "harbour", "bridge", "mill", "forest", "square", "school", "river", "tower", "station",
    "garden", "hill",
];
const GOODS: [&str; 12] = [
    "bread", "cheese", "honey", "wool", "apples", "fish", "candles", "soap", "tea", "salt", "butter",
    "flowers",
];
const ROOTS: [&str; 8] = ["onions", "carrots", "beans", "mushrooms", "turnips", "plums", "pears", "leeks"];
const SPICES: [&str; 6] = ["pepper", "salt", "thyme", "ginger", "sugar", "mint"];
const DISHES: [&str; 6] = ["soup", "stew", "pie", "porridge", "salad", "sauce"];
const MOODS: [&str; 8] = ["happy", "tired", "proud", "worried", "calm", "curious", "hungry", "lonely"];
const SKIES: [&str; 6] = ["rain", "snow", "fog", "wind", "sunshine", "frost"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const NUMBERS: [&str; 11] =
    ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
const CARRIERS: [&str; 6] = ["train", "ferry", "coach", "boat", "bus", "tram"];

/// Draws words; every draw advances the generator by one 32-bit number.
struct Teller<'r> {
    rng: &'r mut dyn Rng,
}

impl Teller<'_> {
    fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: the bias is below 2^-25 for these bounds.
        ((u64::from(self.rng.next_u32()) * bound as u64) >> 32) as usize
    }

    fn one_of<'w, T>(&mut self, words: &'w [T]) -> &'w T {
        &words[self.below(words.len())]
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }

    /// Draws two different words.
    fn two(&mut self, words: &[&'static str]) -> (&'static str, &'static str) {
        let first = self.below(words.len());
        let second = (first + 1 + self.below(words.len() - 1)) % words.len();
        (words[first], words[second])
    }

    /// Draws the usual word in seven cases of ten, else one of the others.
    fn usually(&mut self, usual: &'static str, others: &[&'static str]) -> &'static str {
        if self.below(10) < 7 { usual } else { self.word(others) }
    }

    /// Draws an invented proper name of two or three syllables.
    fn name(&mut self) -> String {
        let count = 2 + self.below(2);
        let text: String = (0..count).map(|_| self.word(&SYLLABLES)).collect();
        let mut letters = text.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    }

    fn pronoun(&mut self) -> (&'static str, &'static str) {
        *self.one_of(&[("She", "Her"), ("He", "His")])
    }

    /// Draws the unique beginning of a prompt.
    fn salt(&mut self) -> String {
        let number = 1_000 + self.below(899_000);
        match self.below(4) {
            0 => format!("Note {number}."),
            1 => format!("Page {number}, written by {}.", self.name()),
            2 => format!("{} asks, number {number}.", self.name()),
            _ => format!("Letter {number} from {}.", self.name()),
        }
    }

    /// Draws a sentence that no answer needs, or nothing.
    fn aside(&mut self) -> String {
        match self.below(3) {
            0 => format!("It was a {} day with a little {}. ", self.word(&MOODS), self.word(&SKIES)),
            1 => format!("The {} by the {} rang. ", self.word(&["bell", "clock"]), self.word(&SPOTS)),
            _ => String::new(),
        }
    }
}

fn portrait(t: &mut Teller<'_>) -> Dialogue {
    let (name, town, pet) = (t.name(), t.name(), t.name());
    let (trade, spot, colour, animal) = (t.word(&TRADES), t.word(&SPOTS), t.word(&COLOURS), t.word(&ANIMALS));
    let (goods, day, (they, their)) = (t.word(&GOODS), t.word(&DAYS), t.pronoun());
    let request = t.word(&["Tell me about", "Who is", "Describe"]);
    let end = if request == "Who is" { "?" } else { "." };
    let prompt = format!(
        "{name} is a {trade} who lives in {town}, near the {spot}. {they} keeps a {colour} {animal} called {pet} \
         and sells {goods} every {day}. {request} {name}{end}"
    );
    let works = t.usually("works as", &["is"]);
    let stands = t.usually("stands", &["is", "lies"]);
    let near = t.usually("near", &["close to", "not far from"]);
    let keeps = t.usually("keeps", &["has", "looks after"]);
    let called = t.usually("called", &["named"]);
    let neighbours = t.usually("neighbours", &["people", "children"]);
    let like = t.usually("like", &["know", "love"]);
    let answer = format!(
        "{name} {works} a {trade} in {town}. {their} house {stands} {near} the {spot}. {they} {keeps} a {colour} \
         {animal} {called} {pet}, and every {day} {name} sells {goods}. The {neighbours} {like} {name} and {pet}."
    );
    Dialogue { prompt, answer }
}

fn message(t: &mut Teller<'_>) -> Dialogue {
    let (owner, finder, town) = (t.name(), t.name(), t.name());
    let (colour, thing, day, trade) = (t.word(&COLOURS), t.word(&THINGS), t.word(&DAYS), t.word(&TRADES));
    let (lost, found) = t.two(&SPOTS);
    let prompt = format!(
        "On {day}, {owner} lost a {colour} {thing} near the {lost} of {town}. {finder} the {trade} found it behind \
         the {found}. Write a short message from {finder} to {owner}."
    );
    let think = t.usually("think", &["believe", "am sure"]);
    let lying = t.usually("lying", &["hidden", "waiting"]);
    let please = t.usually("Please come", &["You can come", "Come"]);
    let house = t.usually("house", &["workshop", "door"]);
    let take = t.usually("take it home", &["collect it", "fetch it"]);
    let kind = t.usually("Kind", &["Warm", "Many"]);
    let answer = format!(
        "Dear {owner}, I {think} that I have found the {colour} {thing} that you lost on {day} near the {lost} of \
         {town}. It was {lying} behind the {found}. {please} to my {house} and {take}. {kind} greetings from \
         {finder} the {trade}."
    );
    Dialogue { prompt, answer }
}

fn journey(t: &mut Teller<'_>) -> Dialogue {
    let (name, from, middle, to) = (t.name(), t.name(), t.name(), t.name());
    let (first, second) = t.two(&CARRIERS);
    let (leaves, arrives, next) = (t.word(&NUMBERS), t.word(&NUMBERS), t.word(&NUMBERS));
    let colour = t.word(&COLOURS);
    let prompt = format!(
        "The {first} leaves {from} at {leaves} and reaches {middle} at {arrives}. A {colour} {second} leaves \
         {middle} at {next} and goes on to {to}. How does {name} travel from {from} to {to}?"
    );
    let takes = t.usually("takes", &["catches", "should take"]);
    let reaches = t.usually("reaches", &["gets to"]);
    let there = t.usually("There", &["After that", "Then"]);
    let changes = t.usually("changes to", &["waits for", "boards"]);
    let trip = t.usually("trip", &["journey", "way"]);
    let long = t.usually("long", &["quiet", "pleasant"]);
    let answer = format!(
        "{name} {takes} the {first} that leaves {from} at {leaves} and {reaches} {middle} at {arrives}. {there}, \
         {name} {changes} the {colour} {second}, which leaves {middle} at {next} and goes on to {to}. The {trip} is \
         {long}."
    );
    Dialogue { prompt, answer }
}

fn shop(t: &mut Teller<'_>) -> Dialogue {
    let (name, town) = (t.name(), t.name());
    let (thing, other) = t.two(&THINGS);
    let (colour, tint, goods, spot) = (t.word(&COLOURS), t.word(&COLOURS), t.word(&GOODS), t.word(&SPOTS));
    let (count, number) = (t.word(&NUMBERS), t.word(&NUMBERS));
    let day = t.word(&DAYS);
    let prompt = format!(
        "{name} has a shop in {town}, across from the {spot}. On the shelf are {count} {colour} {thing}s and \
         {number} {tint} {other}s. There is fresh {goods} every {day}. What can I buy from {name}?"
    );
    let can = t.usually("can buy", &["will find", "can get"]);
    let also = t.usually("also", &["even", "always"]);
    let cheap = t.usually("cheap", &["good", "old"]);
    let but = t.usually("but", &["and"]);
    let are = t.usually("are", &["look"]);
    let better = t.usually("better", &["dearer", "newer"]);
    let answer = format!(
        "From {name} you {can} {count} {colour} {thing}s and {number} {tint} {other}s. Every {day} there is {also} \
         fresh {goods}. The {thing}s are {cheap}, {but} the {other}s {are} {better}. The shop is in {town}, across \
         from the {spot}."
    );
    Dialogue { prompt, answer }
}

fn fable(t: &mut Teller<'_>) -> Dialogue {
    let (hero, friend) = (t.name(), t.name());
    let (animal, beast) = t.two(&ANIMALS);
    let (mood, spot, colour, thing) = (t.word(&MOODS), t.word(&SPOTS), t.word(&COLOURS), t.word(&THINGS));
    let start = t.word(&["Tell a short story about", "Write a small tale about", "Make up a story about"]);
    let prompt = format!(
        "{start} a {mood} {animal} called {hero} who wants a {colour} {thing} and meets a {beast} called {friend} \
         at the {spot}."
    );
    let once = t.usually("Once there was", &["There once was", "Long ago there was"]);
    let day = t.usually("One day", &["One morning", "One evening"]);
    let met = t.usually("met", &["saw", "found"]);
    let want = t.usually("want", &["need"]);
    let smiled = t.usually("smiled", &["laughed", "nodded"]);
    let gave = t.usually("gave", &["brought", "sold"]);
    let since = t.usually("Since then", &["From that day", "Ever since"]);
    let friends = t.usually("friends", &["happy", "neighbours"]);
    let answer = format!(
        "{once} a {mood} {animal} called {hero}. {day}, {hero} {met} a {beast} called {friend} at the {spot}. \"I \
         {want} a {colour} {thing},\" said {hero}. {friend} the {beast} {smiled} and {gave} {hero} a {colour} \
         {thing}. {since}, {hero} and {friend} have been {friends}."
    );
    Dialogue { prompt, answer }
}

fn weather(t: &mut Teller<'_>) -> Dialogue {
    let (town, city, name) = (t.name(), t.name(), t.name());
    let (sky, change) = t.two(&SKIES);
    let (day, next) = t.two(&DAYS);
    let (other, spot) = (t.word(&SKIES), t.word(&SPOTS));
    let prompt = format!(
        "In {town} there was {sky} on {day} and {change} on {next}. In {city} there was only {other} all week. \
         {name} stayed at the {spot}. Give a report of the weather in {town} and {city}."
    );
    let began = t.usually("began with", &["brought", "had"]);
    let later = t.usually("later", &["then", "afterwards"]);
    let came = t.usually("came", &["followed"]);
    let people = t.usually("people", &["farmers", "children"]);
    let saw = t.usually("saw", &["had", "got"]);
    let inside = t.usually("stayed", &["remained", "waited"]);
    let answer = format!(
        "In {town}, {day} {began} {sky}, and {later} on {next} there {came} {change}. In {city} the {people} {saw} \
         only {other} all week. {name} {inside} at the {spot} and looked at the {sky} over {town}."
    );
    Dialogue { prompt, answer }
}

fn recipe(t: &mut Teller<'_>) -> Dialogue {
    let (cook, guest) = (t.name(), t.name());
    let (root, other) = t.two(&ROOTS);
    let (dish, spice, colour) = (t.word(&DISHES), t.word(&SPICES), t.word(&COLOURS));
    let (count, number, time) = (t.word(&NUMBERS), t.word(&NUMBERS), t.word(&NUMBERS));
    let prompt = format!(
        "For the {dish}, {cook} takes {count} {root}, {number} {other} and a little {spice}. It cooks for {time} \
         minutes in a {colour} pot. {guest} will come to eat. How does {cook} make the {dish}?"
    );
    let first = t.usually("First", &["To begin"]);
    let cuts = t.usually("cuts", &["washes", "peels"]);
    let adds = t.usually("adds", &["puts in", "takes"]);
    let cooks = t.usually("cooks", &["boils", "simmers"]);
    let hot = t.usually("hot", &["warm", "done"]);
    let eat = t.usually("eat", &["enjoy", "share"]);
    let together = t.usually("together", &["at the table", "slowly"]);
    let answer = format!(
        "{first}, {cook} {cuts} {count} {root} and {number} {other} and {adds} a little {spice}. The {dish} {cooks} \
         for {time} minutes in a {colour} pot. When the {dish} is {hot}, {guest} and {cook} {eat} it {together}."
    );
    Dialogue { prompt, answer }
}

fn household(t: &mut Teller<'_>) -> Dialogue {
    let (first, second, third) = (t.name(), t.name(), t.name());
    let (trade, craft) = t.two(&TRADES);
    let (colour, spot, animal, thing) = (t.word(&COLOURS), t.word(&SPOTS), t.word(&ANIMALS), t.word(&THINGS));
    let prompt = format!(
        "{first}, {second} and {third} share a {colour} house by the {spot}. {first} is a {trade}, {second} is a \
         {craft}, and {third} has a {animal} and a {thing}. Who lives in the {colour} house?"
    );
    let people = t.usually("people", &["friends"]);
    let works = t.usually("works as", &["is"]);
    let while_ = t.usually("while", &["and"]);
    let evening = t.usually("evening", &["morning", "winter"]);
    let sit = t.usually("sit", &["talk", "sing"]);
    let keeps = t.usually("has", &["keeps", "owns"]);
    let answer = format!(
        "Three {people} live in the {colour} house by the {spot}: {first}, {second} and {third}. {first} {works} a \
         {trade}, {while_} {second} is a {craft}. {third} {keeps} a {animal} and a {thing}. In the {evening} they \
         {sit} by the {spot}."
    );
    Dialogue { prompt, answer }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::{dialogue, prompt};

    #[test]
    fn a_seed_names_its_dialogues() {
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        let text: Vec<String> = (0..4)
            .map(|_| dialogue(&mut rng))
            .map(|dialogue| format!("> {}\n< {}", dialogue.prompt, dialogue.answer))
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn prompts_differ_from_their_first_line_on() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let prompts: Vec<String> = (0..2_000).map(|_| prompt(&mut rng)).collect();
        let starts: HashSet<String> = prompts.iter().map(|text| text.chars().take(24).collect()).collect();
        assert!(starts.len() >= 1_990, "{} different starts", starts.len());
    }

    #[test]
    fn lengths_stay_in_their_range() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        for _ in 0..2_000 {
            let dialogue = dialogue(&mut rng);
            assert!((100..=450).contains(&dialogue.prompt.chars().count()), "{}", dialogue.prompt);
            assert!((120..=330).contains(&dialogue.answer.chars().count()), "{}", dialogue.answer);
        }
    }
}
