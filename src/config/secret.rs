//! Secrets as a type: what may be used but never printed.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// A token, stream key or signed URL. Prints as `***`; wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes `value` into custody.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value, for the one place that must send it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Where a secret is kept outside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A systemd credential (`LoadCredential=`), by its name.
    Credential(String),
    /// An environment variable, by its name.
    Env(String),
    /// A file that holds the secret and nothing else.
    File(PathBuf),
}

/// A token, and where to read it again when it is refused: whoever renews it writes it there.
#[derive(Clone, Debug, PartialEq)]
pub struct Bearer {
    /// The token as it was read last.
    pub token: Secret,
    /// Where it was read; `None` if the configuration holds it.
    pub source: Option<SecretSource>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("planted");
        assert!(!format!("{secret:?} {:?}", Some(secret.clone())).contains("planted"));
        assert_eq!(secret.expose(), "planted");
    }
}
