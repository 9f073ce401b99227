//! Credentials for a container registry, from a Secret of type kubernetes.io/dockerconfigjson. Pure.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// The type of the Secret.
pub const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";

/// Its key.
pub const SECRET_KEY: &str = ".dockerconfigjson";

/// How a puller proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum PullCredentials {
    /// Nothing.
    Anonymous,
    /// A user and a password.
    Basic(String, String),
    /// A token.
    Token(String),
}

impl fmt::Debug for PullCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic(..) => "Basic",
            Self::Token(_) => "Token",
        })
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    registrytoken: String,
}

impl PullCredentials {
    /// Those for an image: as for a pod, the entry whose host and path are the longest beginning of `host/repository`.
    ///
    /// # Errors
    /// What is wrong with the content. No part of it is in the text.
    pub fn for_image(config: &[u8], host: &str, repository: &str) -> Result<Self, String> {
        let config: DockerConfig =
            serde_json::from_slice(config).map_err(|_| "is not JSON as in {\"auths\": {…}}".to_owned())?;
        let matching = config.auths.iter().filter(|(entry, _)| covers(entry, host, repository));
        let Some((entry, auth)) = matching.max_by_key(|(entry, _)| address(entry).len()) else {
            return Err(format!("has no entry for {host}"));
        };
        if !auth.registrytoken.is_empty() {
            return Ok(Self::Token(auth.registrytoken.clone()));
        }
        if !auth.username.is_empty() {
            return Ok(Self::Basic(auth.username.clone(), auth.password.clone()));
        }
        let decoded = BASE64_STANDARD.decode(auth.auth.trim()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self::Basic(user.into(), password.into())),
            _ => Err(format!("has no user and password for {entry}")),
        }
    }
}

/// The host and path of an entry: those of a URL count too.
fn address(entry: &str) -> &str {
    let address = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/');
    match address {
        // What `docker login` writes for Docker Hub.
        "index.docker.io/v1" | "index.docker.io/v2" | "index.docker.io" => "docker.io",
        address => address,
    }
}

fn covers(entry: &str, host: &str, repository: &str) -> bool {
    let (entry_host, path) = address(entry).split_once('/').unwrap_or((address(entry), ""));
    let labels = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (wanted, found) = (labels(entry_host), labels(host));
    let is_host = wanted.len() == found.len()
        && wanted.iter().zip(&found).all(|(wanted, found)| wanted == "*" || wanted == found);
    let is_path = path.is_empty()
        || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_host && is_path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Vec<u8> {
        let auth = BASE64_STANDARD.encode("robot:a:b");
        format!(
            r#"{{"auths": {{
                "registry.example": {{"auth": "{auth}"}},
                "https://registry.example/app/": {{"username": "app", "password": "p"}},
                "*.cloud.example": {{"registrytoken": "t"}},
                "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "127.0.0.1:5000": {{"auth": "?"}},
                "empty.example": {{"identitytoken": "x"}}
            }}, "credHelpers": {{}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn entry_with_the_longest_address_is_taken() {
        let of = |host: &str, repository: &str| PullCredentials::for_image(&config(), host, repository);
        let basic = |user: &str, password: &str| Ok(PullCredentials::Basic(user.into(), password.into()));
        assert_eq!(of("registry.example", "other/x"), basic("robot", "a:b"));
        assert_eq!(of("registry.example", "application/x"), basic("robot", "a:b"));
        assert_eq!(of("registry.example", "app/x"), basic("app", "p"));
        assert_eq!(of("eu.cloud.example", "x"), Ok(PullCredentials::Token("t".into())));
        assert_eq!(of("docker.io", "library/x"), basic("robot", "a:b"));
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is() {
        let of = |config: &[u8], host: &str| PullCredentials::for_image(config, host, "x").unwrap_err();
        assert_eq!(of(&config(), "other.example"), "has no entry for other.example");
        assert_eq!(of(&config(), "a.b.cloud.example"), "has no entry for a.b.cloud.example");
        for host in ["127.0.0.1:5000", "empty.example"] {
            assert_eq!(of(&config(), host), format!("has no user and password for {host}"));
        }
        assert!(of(b"secret", "x").starts_with("is not JSON"));
        assert_eq!(format!("{:?}", PullCredentials::Basic("u".into(), "p".into())), "Basic");
    }
}
