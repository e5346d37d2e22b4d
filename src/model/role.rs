//! Whose server a job boots, and what that says about the fault of a failure around it.

use super::{Arm, Fault, words};

words! {
    /// Whose server a job boots. The words of [`Arm`] are among these, so that a read's arm may stand for its role.
    pub enum Role {
        /// The pinned server everybody is compared with.
        Baseline = "baseline",
        /// A submission's server.
        Candidate = "candidate",
        /// The trusted server that says how probable each token of an answer is.
        Scorer = "scorer",
    }
}

impl Role {
    /// Whose fault a failure around this server is: only a candidate's failure can be a submission's fault.
    pub fn fault(self, fault: Fault) -> Fault {
        match (self, fault) {
            (Self::Baseline | Self::Scorer, Fault::Submission) => Fault::Infra,
            _ => fault,
        }
    }
}

impl From<Arm> for Role {
    fn from(arm: Arm) -> Self {
        match arm {
            Arm::Baseline => Self::Baseline,
            Arm::Candidate => Self::Candidate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_candidate_can_be_at_fault_for_its_submission() {
        for fault in Fault::ALL {
            let check =
                |role: Role, expected: Fault| assert_eq!(role.fault(*fault), expected, "{role}, {fault}");
            let ours = if *fault == Fault::Submission { Fault::Infra } else { *fault };
            check(Role::Candidate, *fault);
            check(Role::Baseline, ours);
            check(Role::Scorer, ours);
        }
    }

    #[test]
    fn every_word_of_an_arm_is_the_word_of_its_role() {
        for arm in Arm::ALL {
            assert_eq!(arm.as_str().parse(), Ok(Role::from(*arm)));
        }
    }
}
