//! Which jobs stand before and after others, directly or through others.

use std::collections::BTreeSet;

use super::definition::Pipeline;

impl Pipeline {
    /// The jobs that a job needs, and all that these need.
    pub fn upstream(&self, job: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![job];
        while let Some(job) = open.pop().and_then(|id| self.job(id)) {
            open.extend(job.needs.iter().map(|need| need.job.as_str()).filter(|need| !found.contains(*need)));
            found.extend(job.needs.iter().map(|need| need.job.clone()));
        }
        found
    }

    /// These jobs, and all that need one of them.
    pub fn downstream<'a>(&self, jobs: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        let jobs: BTreeSet<String> = jobs.into_iter().map(str::to_owned).collect();
        let is_below = |id: &str| jobs.contains(id) || !self.upstream(id).is_disjoint(&jobs);
        self.jobs.iter().map(|job| &job.id).filter(|id| is_below(id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    #[test]
    fn jobs_before_and_after_others() {
        let job = |id: &str, needs: &str| {
            format!("  {id}: {{ runs-on: controller, needs: [{needs}], steps: [{{ run: 'true' }}] }}\n")
        };
        let jobs = [("a", ""), ("b", "a"), ("c", "a"), ("d", "b, c"), ("e", "")];
        let text = format!("name: t\njobs:\n{}", jobs.map(|(id, needs)| job(id, needs)).concat());
        let pipeline = Pipeline::parse(&Source::new("t.yml", &text)).expect("parses").value;
        let text = |jobs: BTreeSet<String>| jobs.into_iter().collect::<String>();
        for (job, before, after) in
            [("a", "", "abcd"), ("b", "a", "bd"), ("d", "abc", "d"), ("e", "", "e"), ("none", "", "")]
        {
            let below = text(pipeline.downstream([job]));
            assert_eq!((text(pipeline.upstream(job)).as_str(), below.as_str()), (before, after), "{job}");
        }
        assert_eq!(text(pipeline.downstream(["c", "e"])), "cde");
    }
}
