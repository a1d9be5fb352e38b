//! Which publisher of this process uses which stream. A configuration may name one stream twice, by its name and by
//! its identifier, and only the vendor's answer shows that it is one: the second to come is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::ledger::Key;
use super::locked;

/// Every stream in use.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<BTreeMap<Key, Holder>>,
}

#[derive(Debug)]
struct Holder {
    publisher: String,
    /// Tells a claim from a later one of the same publisher.
    claim: Arc<()>,
}

/// The use of one stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    key: Key,
    claim: Arc<()>,
}

impl Claims {
    /// Claims a stream for `publisher`; if another publisher uses it, that one's name. A publisher that begins anew
    /// takes it over from itself, for what it was before may still be ending.
    pub(super) fn claim(self: &Arc<Self>, key: &Key, publisher: &str) -> Result<Claim, String> {
        let mut held = locked(&self.held);
        if let Some(holder) = held.get(key)
            && holder.publisher != publisher
        {
            return Err(holder.publisher.clone());
        }
        let claim = Arc::new(());
        let holder = Holder {
            publisher: publisher.to_owned(),
            claim: Arc::clone(&claim),
        };
        held.insert(key.clone(), holder);
        Ok(Claim {
            claims: Arc::clone(self),
            key: key.clone(),
            claim,
        })
    }

    /// Whether somebody else than `publisher` uses it.
    pub(super) fn is_anothers(&self, key: &Key, publisher: &str) -> bool {
        let held = locked(&self.held);
        (held.get(key)).is_some_and(|holder| holder.publisher != publisher)
    }
}

impl Claim {
    /// Whether it is of this stream.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key == *key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = locked(&self.claims.held);
        let is_ours = |holder: &Holder| Arc::ptr_eq(&holder.claim, &self.claim);
        if held.get(&self.key).is_some_and(is_ours) {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key {
            vendor: "qencode".to_owned(),
            api: "https://api".to_owned(),
            id: id.to_owned(),
        }
    }

    #[test]
    fn a_stream_is_anothers_until_that_one_lets_go() {
        let claims = Arc::new(Claims::default());
        let first = claims.claim(&key("a"), "main").unwrap();
        assert_eq!(claims.claim(&key("a"), "spare").unwrap_err(), "main");
        assert!(claims.is_anothers(&key("a"), "spare"));
        assert!(!claims.is_anothers(&key("a"), "main"));
        let other = claims.claim(&key("b"), "spare").unwrap();
        assert!(other.is_of(&key("b")) && !other.is_of(&key("a")));
        drop(first);
        assert!(claims.claim(&key("a"), "spare").is_ok());
    }

    #[test]
    fn what_a_publisher_was_before_takes_nothing_from_what_it_is() {
        let claims = Arc::new(Claims::default());
        let before = claims.claim(&key("a"), "main").unwrap();
        let now = claims.claim(&key("a"), "main").unwrap();
        drop(before);
        assert!(claims.is_anothers(&key("a"), "spare"));
        drop(now);
        assert!(!claims.is_anothers(&key("a"), "spare"));
    }
}
