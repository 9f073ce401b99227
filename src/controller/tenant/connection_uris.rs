//! The URIs of a connection Secret. Those that work as mounted name the file with the server's authority, at the documented
//! mount path. Login, password and database name consist of `[A-Za-z0-9_]`, and the Secret's name of `[a-z0-9.-]`: nothing
//! needs escapes.

/// Where a Secret is mounted by convention: in a directory of its own name, here.
pub const MOUNT_ROOT: &str = "/bindings";

/// The keys of the URIs that work where the Secret is mounted. Earlier releases did not write them.
pub const MOUNTED_KEYS: [&str; 2] = ["uri-mounted", "jdbc-uri-mounted"];

/// What the URIs are made of.
pub struct ConnectionUris<'a> {
    /// The published host.
    pub host: &'a str,
    /// The published port.
    pub port: u16,
    /// The published sslmode, as libpq spells it.
    pub sslmode: &'a str,
    /// The certificates of the server's own authority, PEM, or empty.
    pub certificates: &'a str,
    /// The name of the Secret.
    pub name: &'a str,
    /// The login.
    pub login: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Its database.
    pub database: &'a str,
}

impl ConnectionUris<'_> {
    /// For libpq and the drivers that follow it.
    pub fn uri(&self) -> String {
        let Self { login, password, database, sslmode, .. } = self;
        format!("postgresql://{login}:{password}@{}/{database}?sslmode={sslmode}", self.authority())
    }

    /// For pgJDBC.
    pub fn jdbc_uri(&self) -> String {
        let Self { login, password, database, sslmode, .. } = self;
        let authority = self.authority();
        format!("jdbc:postgresql://{authority}/{database}?user={login}&password={password}&sslmode={sslmode}")
    }

    /// As [`Self::uri`], with the mounted file of the authority, if the server has its own and is verified.
    pub fn uri_mounted(&self) -> String {
        self.uri() + &self.root_certificate().unwrap_or_default()
    }

    /// As [`Self::jdbc_uri`], with the mounted file; without an own authority, with those that Java trusts, because pgJDBC
    /// trusts none by itself.
    pub fn jdbc_uri_mounted(&self) -> String {
        let public = || "&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory".to_owned();
        let trust = self.root_certificate().or_else(|| self.verifies().then(public));
        self.jdbc_uri() + &trust.unwrap_or_default()
    }

    fn root_certificate(&self) -> Option<String> {
        let is_named = self.verifies() && !self.certificates.is_empty();
        is_named.then(|| format!("&sslrootcert={MOUNT_ROOT}/{}/certificates", self.name))
    }

    fn verifies(&self) -> bool {
        self.sslmode.starts_with("verify-")
    }

    /// RFC 3986: an IPv6 address is in brackets.
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: ConnectionUris<'_> = ConnectionUris {
        host: "db.example",
        port: 5432,
        sslmode: "verify-full",
        certificates: "PEM",
        name: "acme-db",
        login: "tenant_acme_app",
        password: "pw",
        database: "tenant_acme",
    };

    #[test]
    fn mounted_uri_adds_the_file_of_the_authority() {
        let uri = "postgresql://tenant_acme_app:pw@db.example:5432/tenant_acme?sslmode=verify-full";
        let jdbc = "jdbc:postgresql://db.example:5432/tenant_acme?user=tenant_acme_app&password=pw&sslmode=verify-full";
        let file = "&sslrootcert=/bindings/acme-db/certificates";
        assert_eq!((ACME.uri().as_str(), ACME.jdbc_uri().as_str()), (uri, jdbc));
        assert_eq!(
            (ACME.uri_mounted(), ACME.jdbc_uri_mounted()),
            (format!("{uri}{file}"), format!("{jdbc}{file}"))
        );
    }

    #[test]
    fn no_file_is_named_that_would_be_empty_or_not_used() {
        let public = ConnectionUris { certificates: "", ..ACME };
        assert_eq!(public.uri_mounted(), public.uri());
        assert!(public.jdbc_uri_mounted().ends_with("&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory"));
        for sslmode in ["disable", "require"] {
            for certificates in ["", "PEM"] {
                let unverified = ConnectionUris { sslmode, certificates, ..ACME };
                assert_eq!(unverified.uri_mounted(), unverified.uri());
                assert_eq!(unverified.jdbc_uri_mounted(), unverified.jdbc_uri());
            }
        }
    }

    #[test]
    fn ipv6_host_is_in_brackets() {
        let local = ConnectionUris { host: "::1", ..ACME };
        for uri in [local.uri(), local.jdbc_uri(), local.uri_mounted(), local.jdbc_uri_mounted()] {
            assert!(uri.contains("[::1]:5432/"), "{uri}");
        }
    }
}
