//! `DatabaseServer`: a PostgreSQL server that hosts tenant databases.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    string_enum::string_enum,
    validation::{conditions, not_yet, resource_name, rule},
};

/// Connection to a PostgreSQL server, and the namespaces whose tenants it may host.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "DatabaseServer",
    status = "DatabaseServerStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "dbs",
    category = "tenantry",
    doc = "A DatabaseServer is a PostgreSQL server (15 to 18) that hosts tenant databases. The operator needs a login on it that may create databases and roles and is not a superuser; `tenantry server-setup` creates that login. The Secrets that a DatabaseServer refers to are in the operator's namespace. A DatabaseServer cannot be deleted while a tenant has a database on it.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version of PostgreSQL"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants", description = "Number of tenants with a database on the server"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending", description = "Tenants whose Secret does not publish the present address yet"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerSpec {
    /// Database engine of the server. Must be PostgreSQL.
    pub engine: Engine,

    /// DNS name or IP address of the server, without scheme and port. With TLS mode VerifyFull, the server's
    /// certificate must be valid for it.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(HOST, "host must be a DNS name or an IP address alone, without scheme, port or user, as in db.example; the port goes into port"))]
    pub host: String,

    /// Port of the server, from 1 to 65535. Defaults to 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,

    /// Secret with the operator's login to this server, in the keys username and password.
    pub admin_secret_ref: SecretRef,

    /// TLS settings of the connection to the server. Defaults to VerifyFull with the certificate authorities of the
    /// operator's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,

    /// Address that is published to tenants, for example that of a connection pooler. Defaults to the host and port of
    /// the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,

    /// Prefix of the names of tenant databases: at most 16 characters of a-z, 0-9 and '_', starting with a letter.
    /// Defaults to `tenant_`. A change applies to new tenants; the name of an existing database never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = rule("self.matches('^[a-z][a-z0-9_]*$')", "prefix must have 1 to 16 characters of a-z, 0-9 and '_' and start with a letter, as in tenant_"),
        validation = rule(
            "!self.startsWith('tenantry_') && !'tenantry_'.startsWith(self) && !self.startsWith('pg_') && !'pg_'.startsWith(self)",
            "prefix must not start with tenantry_ or pg_, nor be the beginning of one of them, because Tenantry and PostgreSQL use such names: choose another, as in tenant_",
        ),
    )]
    pub prefix: Option<String>,

    /// How the databases and logins of new tenants are named. Slug (the default): prefix and slug, as in tenant_acme;
    /// every tenant on the server can read these names. Opaque: t_ and the tenant's id, for those who must not show one
    /// customer the names of the others; prefix has no effect then. A change applies to new tenants; the name of an
    /// existing database never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_names: Option<DatabaseNames>,

    /// Namespaces whose Tenants may be hosted on this server, at most 500. Defaults to all namespaces; an empty list
    /// allows none. A Tenant of another namespace has Ready False with the reason NamespaceNotAllowed; a tenant that is
    /// already hosted here keeps its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
            "allowedNamespaces must list names of namespaces: a-z, 0-9 and '-', with a letter or a digit at both ends",
        ),
    )]
    pub allowed_namespaces: Option<Vec<String>>,

    /// Databases on this server that a Tenant may take over with spec.adopt: names, or patterns in which '*' matches any
    /// text, as in shop_*; at most 100. Defaults to none. A database of another tenant, and PostgreSQL's own, is never
    /// taken over, whatever is listed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_adoption: Vec<String>,

    /// Maximum number of tenants on the server. Not supported yet: every value is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = not_yet("capacity"))]
    pub capacity: Option<i64>,

    /// Number of databases that are kept ready for new tenants. Defaults to 0. Not supported yet: must be 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self == 0", "warmPool must be 0 or left out: databases kept ready are not supported yet"))]
    pub warm_pool: Option<i64>,
}

/// A DNS name, or an IPv4 or IPv6 address.
const HOST: &str = r"self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?)*[.]?|[0-9a-fA-F]*:[0-9a-fA-F:.]+)$')";

/// The database engine of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Engine {
    /// PostgreSQL 15 to 18.
    #[default]
    PostgreSQL,
}
string_enum!(Engine { PostgreSQL => "PostgreSQL" });

/// How databases are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DatabaseNames {
    /// Prefix and slug.
    #[default]
    Slug,
    /// t_ and the tenant's id.
    Opaque,
}
string_enum!(DatabaseNames { Slug => "Slug", Opaque => "Opaque" });

/// Reference to a Secret in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = resource_name("name", "Secret"))]
    pub name: String,
}

/// Reference to a key of a Secret in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = resource_name("name", "Secret"))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule("self.matches('^[-._a-zA-Z0-9]+$')", "key must be a key of a Secret: letters, digits, '-', '_' and '.', as in ca.crt"))]
    pub key: String,
}

/// TLS settings of a connection.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "!has(self.caSecretRef) || !has(self.mode) || self.mode in ['VerifyCA', 'VerifyFull']",
    "tls.caSecretRef has no effect with mode Disable or Require, which verify nothing: set mode to VerifyFull or VerifyCA, or remove caSecretRef",
))]
pub struct ServerTls {
    /// How the connection is protected. VerifyFull (the default): encrypted, with a certificate of a trusted authority
    /// that is valid for the host. VerifyCA: encrypted, with a certificate of a trusted authority for any host.
    /// Require: encrypted, with any certificate. Disable: not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Certificate authority to trust, in PEM format, and no other. Defaults to the certificate authorities of the
    /// operator's system. It is published to tenants as well, in the key certificates of their Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted, with any certificate.
    Require,
    /// Encrypted, with a certificate of a trusted authority.
    #[serde(rename = "VerifyCA")]
    VerifyCa,
    /// Encrypted, with a certificate of a trusted authority that is valid for the host.
    #[default]
    VerifyFull,
}
string_enum!(TlsMode {
    Disable => "Disable",
    Require => "Require",
    VerifyCa => "VerifyCA",
    VerifyFull => "VerifyFull",
});

/// Address of the server as published to tenants.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// Host that tenants connect to. Defaults to the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(HOST, "publish.host must be a DNS name or an IP address alone, without scheme, port or user, as in pooler.example; the port goes into publish.port"))]
    pub host: Option<String>,
    /// Port that tenants connect to, from 1 to 65535. Defaults to the server's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The sslmode that is published to tenants, as libpq names it. Defaults to the equivalent of tls.mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sslmode: Option<SslMode>,
}

/// How a connection is protected, as libpq names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Not encrypted.
    Disable,
    /// Encrypted, with any certificate.
    Require,
    /// Encrypted, with a certificate of a trusted authority.
    VerifyCa,
    /// Encrypted, with a certificate of a trusted authority that is valid for the host.
    VerifyFull,
}
string_enum!(SslMode {
    Disable => "disable",
    Require => "require",
    VerifyCa => "verify-ca",
    VerifyFull => "verify-full",
});

/// Observed state of the server. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerStatus {
    /// The metadata.generation that this status describes; -1 until the operator has checked the server for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of PostgreSQL, for example 18.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Number of tenants with a database on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i64>,
    /// Number of tenants whose connection Secret does not publish the present address, sslmode and certificate authority
    /// yet. Changes reach a few tenants at a time. Paused tenants do not count, nor do those that are being deprovisioned.
    /// Unset while the operator cannot connect to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Conditions of the server, by type: Ready, Reachable, Privileged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
