//! Which of Wowza's two dialects to speak, by the evidence of the answers so far. Pure.

use super::super::Dialect;

/// Silences in a row after which a dialect that once got an answer is doubted: a server may be replaced by an older
/// one, but much more often it is only slow or restarting.
const SILENCES: u32 = 3;

/// How an offer, or the attempt to make one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// With a reply in the dialect spoken, be it a refusal.
    Answered,
    /// With a reply in the other dialect.
    Contradicted,
    /// With silence, or in a way that says nothing.
    Silence,
    /// The server, or what stands before it, does not let us in at the dialect's own URL.
    TurnedAway,
}

/// The choice, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    dialect: Dialect,
    /// The server has answered in it.
    known: bool,
    silences: u32,
}

impl Choice {
    /// Begins with v2 where the URL itself asks for that implementation, else with v1: Wowza Video
    /// (`*.entrypoint.video.wowza.com`, `*.entrypoint.cloud.wowza.com`) speaks nothing else for certain, and every
    /// version of Streaming Engine knows it (protocols.md 2.6).
    pub(super) fn new(flag: Option<&str>) -> Self {
        let newer = flag.is_some_and(|flag| ["v2", "modern"].contains(&flag));
        Self {
            dialect: if newer {
                Dialect::WowzaV2
            } else {
                Dialect::WowzaV1
            },
            known: false,
            silences: 0,
        }
    }

    pub(super) const fn dialect(self) -> Dialect {
        self.dialect
    }

    /// Takes what a session's offer in this dialect met; the next offer is made in the dialect that then stands.
    pub(super) const fn note(&mut self, evidence: Evidence) {
        match evidence {
            Evidence::Answered => {
                self.known = true;
                self.silences = 0;
            }
            Evidence::Contradicted => self.switch(),
            Evidence::Silence => {
                self.silences += 1;
                if !self.known || self.silences >= SILENCES {
                    self.switch();
                }
            }
            // A known one is turned away by a proxy in trouble rather than for its URL.
            Evidence::TurnedAway => {
                if !self.known {
                    self.switch();
                }
            }
        }
    }

    const fn switch(&mut self) {
        self.dialect = match self.dialect {
            Dialect::WowzaV1 => Dialect::WowzaV2,
            Dialect::Ome | Dialect::Whip | Dialect::WowzaV2 => Dialect::WowzaV1,
        };
        self.known = false;
        self.silences = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Evidence::{Answered, Contradicted, Silence, TurnedAway};
    use super::*;

    const V1: Dialect = Dialect::WowzaV1;
    const V2: Dialect = Dialect::WowzaV2;

    /// The dialects of the offers, each of which meets one of `evidence`, and of the one after them.
    fn follow(flag: Option<&str>, evidence: &[Evidence]) -> Vec<Dialect> {
        let mut choice = Choice::new(flag);
        let mut dialects = vec![choice.dialect()];
        for evidence in evidence {
            choice.note(*evidence);
            dialects.push(choice.dialect());
        }
        dialects
    }

    #[test]
    fn the_url_suggests_the_first() {
        assert_eq!(follow(None, &[]), [V1]);
        assert_eq!(follow(Some("v2"), &[]), [V2]);
        assert_eq!(follow(Some("modern"), &[]), [V2]);
        assert_eq!(follow(Some("legacy"), &[]), [V1]);
    }

    #[test]
    fn a_silence_before_any_answer_turns_to_the_other_each_time() {
        assert_eq!(follow(None, &[Silence; 4]), [V1, V2, V1, V2, V1]);
        assert_eq!(follow(Some("v2"), &[Silence; 2]), [V2, V1, V2]);
    }

    #[test]
    fn what_got_an_answer_is_kept_until_three_silences_in_a_row() {
        assert_eq!(
            follow(None, &[Silence, Answered, Silence, Silence, Silence]),
            [V1, V2, V2, V2, V2, V1]
        );
        assert_eq!(
            follow(
                None,
                &[Answered, Silence, Silence, Answered, Silence, Silence]
            ),
            [V1; 7]
        );
    }

    #[test]
    fn a_doubted_dialect_that_is_silent_again_gives_way_at_once() {
        let evidence = [Answered, Silence, Silence, Silence, Silence, Silence];
        assert_eq!(follow(None, &evidence)[3..], [V1, V2, V1, V2]);
    }

    #[test]
    fn a_contradiction_turns_to_the_other_whatever_was_known() {
        assert_eq!(follow(None, &[Contradicted, Answered]), [V1, V2, V2]);
        assert_eq!(follow(None, &[Answered, Contradicted]), [V1, V1, V2]);
    }

    #[test]
    fn who_is_turned_away_tries_the_other_unless_it_once_got_an_answer() {
        assert_eq!(follow(None, &[TurnedAway]), [V1, V2]);
        assert_eq!(follow(None, &[Answered, TurnedAway, TurnedAway]), [V1; 4]);
    }
}
