//! What a database was before it was taken over, for an undo.

use serde::{Deserialize, Serialize};

use super::found::{FoundDatabase, FoundRights};

/// The owner of an object, before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerObject {
    /// The catalog that the object is in.
    pub catalog: i64,
    /// Its oid: its name may change.
    pub oid: i64,
    /// The role.
    pub owner: String,
    /// The rights that PUBLIC had on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public: Vec<String>,
    /// The rights that the kept login had on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub login: Vec<String>,
}

/// A kept login, before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerLogin {
    /// The role, which a later one of its name is not.
    pub oid: i64,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// The maximum number of its sessions.
    pub connection_limit: i32,
}

/// What a database was before. It is recorded before anything is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The database, which a later one of its name is not.
    pub oid: i64,
    /// Its owner.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
    /// The maximum number of sessions in it.
    pub connection_limit: i32,
    /// Who had rights on it.
    pub rights: Vec<FoundRights>,
    /// The owners of the objects in it.
    pub objects: Vec<FormerObject>,
    /// The login that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<FormerLogin>,
}

impl Former {
    /// What has to be known of a database that was found.
    pub fn of(found: &FoundDatabase) -> Self {
        let objects = found.content.iter().flat_map(|content| &content.objects).map(|object| FormerObject {
            catalog: object.catalog,
            oid: object.oid,
            owner: object.owner.clone(),
            public: object.public.clone(),
            login: object.login.clone(),
        });
        Self {
            oid: found.oid,
            owner: found.owner.name.clone(),
            comment: found.comment.clone(),
            connection_limit: found.connection_limit,
            rights: found.rights.clone(),
            objects: objects.collect(),
            login: found.login.as_ref().map(|login| FormerLogin {
                oid: login.oid,
                name: login.name.clone(),
                comment: login.comment.clone(),
                connection_limit: login.connection_limit,
            }),
        }
    }

    /// What an object was, if it existed.
    pub fn object(&self, catalog: i64, oid: i64) -> Option<&FormerObject> {
        self.objects.iter().find(|object| (object.catalog, object.oid) == (catalog, oid))
    }

    /// The role that gets an object back: its former owner; of one that was made since, the owner of the database.
    pub fn owner_of(&self, catalog: i64, oid: i64) -> &str {
        self.object(catalog, oid).map_or(&self.owner, |object| &object.owner)
    }

    /// The roles that owned something, or had rights on the database, and the kept login.
    pub fn roles(&self) -> Vec<String> {
        let owners = self.objects.iter().map(|object| &object.owner).chain([&self.owner]);
        let owners = owners.chain(self.login.iter().map(|login| &login.name));
        let mut names: Vec<String> =
            owners.chain(self.rights.iter().filter_map(|rights| rights.role.as_ref())).cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
