use super::*;

/// What a scorer makes of a launch that was asked these, the last one now.
type Nature<'n> = &'n dyn Fn(&[Question]) -> bool;

/// How a round of questions ended.
#[derive(Debug, PartialEq)]
struct Ended {
    scored: BTreeSet<Question>,
    refused: Vec<String>,
    deaths: usize,
    /// Whether all was scored or refused; else the machine was at fault.
    is_done: bool,
}

/// Baseline `b` and `names`, each with `answers` answers of its own; prompt 100 was answered alike by all.
fn givers(names: &[&'static str], answers: u32) -> Givers<'static> {
    let mut givers = Givers::new();
    for (place, name) in (1..).zip(names) {
        let hotkey = (*name != "b").then_some(*name);
        givers.entry((100, vec![1])).or_default().insert(hotkey);
        for prompt in 0..answers {
            givers.entry((prompt, vec![place])).or_default().insert(hotkey);
        }
    }
    givers
}

/// Asks until nothing is left, of a scorer that dies as `dies` says.
fn play(givers: &Givers<'static>, died_at: &[Question], dies: Nature<'_>) -> Ended {
    // Prompt by prompt: whose an answer is stands in no order.
    let order: Vec<&Question> = givers.keys().collect();
    let mut suspects = Suspects::new(givers, order, died_at);
    let mut scored = BTreeSet::new();
    let mut launch = Vec::new();
    while let Some(question) = suspects.next() {
        launch.push(question.clone());
        if dies(&launch) {
            launch.clear();
            suspects.died(Some(question));
            if !suspects.may_launch() {
                break;
            }
        } else {
            scored.insert(question.clone());
            suspects.answered(question);
        }
    }
    let is_done = givers.keys().all(|question| scored.contains(question) || suspects.is_refused(question));
    Ended {
        scored,
        refused: suspects.refused.iter().map(|hotkey| (*hotkey).to_owned()).collect(),
        deaths: suspects.died,
        is_done,
    }
}

/// The answers of one who stands at this place among the givers.
fn is_of(question: &Question, place: u32) -> bool {
    question.1 == [place]
}

/// All that was not refused has been scored, and these were refused after so many deaths at the most.
fn check(ended: &Ended, givers: &Givers<'static>, refused: &[&str], deaths: usize) {
    assert!(ended.is_done, "{ended:?}");
    assert_eq!(ended.refused, refused);
    assert!(ended.deaths <= deaths, "{ended:?}");
    let honest = |by: &BTreeSet<Option<&str>>| by.iter().any(|by| by.is_none_or(|by| !refused.contains(&by)));
    let missing = givers.iter().find(|(question, by)| honest(by) && !ended.scored.contains(*question));
    assert_eq!(missing, None);
}

#[test]
fn a_scorer_that_lives_is_asked_in_the_order_of_the_seed() {
    let givers = givers(&["b", "x", "y"], 4);
    let order: Vec<&Question> = givers.keys().rev().collect();
    let mut suspects = Suspects::new(&givers, order.clone(), &[]);
    let mut asked = Vec::new();
    while let Some(question) = suspects.next() {
        asked.push(question);
        suspects.answered(question);
    }
    assert_eq!(asked, order);
    assert!(suspects.may_launch());
}

#[test]
fn killers_are_refused_and_nobody_else_is() {
    let names = ["b", "x", "k1", "y", "k2", "k3"];
    let givers = givers(&names, 8);
    let killers = [3, 5, 6];
    let all =
        |asked: &[Question]| asked.last().is_some_and(|last| killers.iter().any(|place| is_of(last, *place)));
    check(&play(&givers, &[], &all), &givers, &["k1", "k2", "k3"], 6);
    // One answer of each is enough.
    let one = |asked: &[Question]| all(asked) && asked.last().is_some_and(|last| last.0 == 5);
    check(&play(&givers, &[], &one), &givers, &["k1", "k2", "k3"], 6);
    // Right control: the same answers on a scorer that takes them.
    check(&play(&givers, &[], &|_| false), &givers, &[], 0);
}

#[test]
fn two_hotkeys_with_the_same_answers_cost_no_more_than_one() {
    let mut givers = givers(&["b", "x", "k1", "k2"], 4);
    for prompt in 0..4 {
        givers.remove(&(prompt, vec![4]));
        givers.entry((prompt, vec![3])).or_default().insert(Some("k2"));
    }
    let dies = |asked: &[Question]| asked.last().is_some_and(|last| is_of(last, 3));
    check(&play(&givers, &[], &dies), &givers, &["k1", "k2"], 2);
    // What the baseline answered too is nobody's.
    let dies = |asked: &[Question]| asked.last().is_some_and(|last| last.0 == 100);
    let ended = play(&givers, &[], &dies);
    assert!(!ended.is_done && ended.refused.is_empty(), "{ended:?}");
    assert_eq!(ended.deaths, OF_NOBODY + 1);
}

#[test]
fn a_death_that_comes_late_blames_nobody_else() {
    let names = ["b", "x", "k", "y", "z"];
    let givers = givers(&names, 8);
    for delay in 1..16 {
        let dies = |asked: &[Question]| {
            asked.iter().position(|question| is_of(question, 3)).is_some_and(|at| asked.len() > at + delay)
        };
        let ended = play(&givers, &[], &dies);
        assert!(ended.is_done, "{delay}: {ended:?}");
        assert!(ended.refused.is_empty() || ended.refused == ["k"], "{delay}: {ended:?}");
        let refused: Vec<&str> = ended.refused.iter().map(String::as_str).collect();
        check(&ended, &givers, &refused, EACH + 1 + OF_NOBODY);
    }
}

#[test]
fn a_scorer_that_dies_by_itself_refuses_nobody() {
    let givers = givers(&["b", "x", "y", "z"], 12);
    // After so many questions of each life, whoever's they are.
    for life in 1..60 {
        let ended = play(&givers, &[], &|asked| asked.len() >= life);
        assert!(ended.refused.is_empty(), "{life}: {ended:?}");
    }
    assert!(play(&givers, &[], &|asked| asked.len() >= 20).is_done);
    // It never takes anything: the machine's fault, at once.
    let ended = play(&givers, &[], &|_| true);
    assert!(!ended.is_done && ended.deaths <= OF_NOBODY + 2, "{ended:?}");
    // Wrong control: as many deaths, and all at the answers of one.
    let dies = |asked: &[Question]| asked.last().is_some_and(|last| is_of(last, 3));
    check(&play(&givers, &[], &dies), &givers, &["y"], 2);
}

#[test]
fn who_kills_only_together_is_refused_after_the_second_launch_alone() {
    let givers = givers(&["b", "x", "k", "y"], 12);
    let dies = |asked: &[Question]| asked.iter().filter(|question| is_of(question, 3)).count() >= 3;
    check(&play(&givers, &[], &dies), &givers, &["k"], EACH);
}

#[test]
fn what_earlier_attempts_left_makes_suspects_of_those_who_gave_it() {
    let givers = givers(&["b", "x", "k", "y"], 4);
    let dies = |asked: &[Question]| asked.last().is_some_and(|last| is_of(last, 3));
    let kept = [(0, vec![3])];
    check(&play(&givers, &kept, &dies), &givers, &["k"], 2);
    // Everybody else's come first.
    let order: Vec<&Question> = givers.keys().collect();
    let mut suspects = Suspects::new(&givers, order, &kept);
    let mut asked = Vec::new();
    while let Some(question) = suspects.next() {
        asked.push(question.clone());
        suspects.answered(question);
    }
    assert_eq!(asked[asked.len() - 4], (0, vec![3]), "{asked:?}");
    assert!(asked[asked.len() - 4..].iter().all(|question| is_of(question, 3)), "{asked:?}");
    // Suspicion alone refuses nobody, however often it was.
    let kept = [(0, vec![3]), (0, vec![3]), (1, vec![3])];
    check(&play(&givers, &kept, &|_| false), &givers, &[], 0);
    // One that is not asked any more, and one of the baseline's.
    check(&play(&givers, &[(9, vec![9]), (100, vec![1])], &|_| false), &givers, &[], 0);
}
