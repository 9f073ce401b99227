//! The variables `OTEL_*`, as the OpenTelemetry specification defines them. The SDK ignores a value that it cannot use; here it
//! is an error at the start. The SDK itself reads the variables for sampling, batches, headers and the resource.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, Uri};

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A variable that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct Error {
    /// Its name.
    pub variable: String,
    /// What is wrong with it. Without its value, which may be a secret.
    pub why: String,
}

impl Error {
    pub(super) fn new(variable: &str, why: impl Into<String>) -> Self {
        Self { variable: variable.to_owned(), why: why.into() }
    }
}

/// Where spans go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The URL to which spans are posted.
    pub endpoint: String,
    /// A file with the authorities to trust, instead of those of the system.
    pub certificate: Option<PathBuf>,
    /// How long one export may take, its attempts included.
    pub timeout: Duration,
    /// How many spans wait at most.
    pub queue: usize,
    /// The name of the service, if it is set.
    pub service_name: Option<String>,
}

impl Settings {
    /// Reads the environment; nothing if traces are off.
    ///
    /// # Errors
    /// A value cannot be used.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let variables = Variables(&variable);
        if variables.is_disabled()? {
            return Ok(None);
        }
        let exporter = variables.one_of(EXPORTER, &["otlp", "none"])?;
        if exporter.as_deref() == Some("none") {
            return Ok(None);
        }
        let Some(endpoint) = variables.endpoint()? else {
            return match exporter {
                None => Ok(None),
                Some(_) => Err(Error::new(EXPORTER, "it needs OTEL_EXPORTER_OTLP_ENDPOINT, a URL")),
            };
        };
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            // gRPC is the default of others.
            if variables.value(name).is_some_and(|protocol| protocol != "http/protobuf") {
                let why = "only http/protobuf is supported; collectors receive it at port 4318";
                return Err(Error::new(name, why));
            }
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"] {
            variables.one_of(name, &["gzip", "none"])?;
        }
        variables.check_pairs(RESOURCE, |_| true)?;
        for name in ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"] {
            variables.check_pairs(name, |key| key.parse::<HeaderName>().is_ok())?;
        }
        variables.check_sampler()?;
        for name in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"] {
            variables.number(name)?;
        }
        let (queue, batch) = (variables.number(QUEUE)?.unwrap_or(2048), variables.number(BATCH)?);
        if queue == 0 || batch.is_some_and(|batch| batch == 0 || batch > queue) {
            return Err(Error::new(BATCH, format!("it must be from 1 to {QUEUE}, which is {queue}")));
        }
        let [own, common] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let timeout = variables.number(own)?.or(variables.number(common)?).unwrap_or(10_000);
        let certificate = variables
            .value("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
            .or_else(|| variables.value("OTEL_EXPORTER_OTLP_CERTIFICATE"));
        Ok(Some(Self {
            endpoint,
            certificate: certificate.map(PathBuf::from),
            timeout: Duration::from_millis(timeout),
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            service_name: variables.value(SERVICE_NAME),
        }))
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// An empty variable counts as one that is not set.
    fn value(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn one_of(&self, name: &str, allowed: &[&str]) -> Result<Option<String>, Error> {
        let value = self.value(name);
        if value.as_deref().is_some_and(|value| !allowed.contains(&value)) {
            return Err(Error::new(name, format!("it must be one of {}", allowed.join(", "))));
        }
        Ok(value)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let parsed = self.value(name).map(|value| value.parse());
        parsed.transpose().map_err(|_| Error::new(name, "it must be a whole number"))
    }

    fn is_disabled(&self) -> Result<bool, Error> {
        match self.value(DISABLED).map(|value| value.to_ascii_lowercase()).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::new(DISABLED, "it must be true or false")),
        }
    }

    /// The URL for traces. A common endpoint gets the path of traces.
    fn endpoint(&self) -> Result<Option<String>, Error> {
        let [own, common] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let (name, url) = match (self.value(own), self.value(common)) {
            (Some(url), _) => (own, url),
            (None, Some(url)) => (common, format!("{}/v1/traces", url.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        let is_usable = url.parse::<Uri>().is_ok_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some_and(|host| !host.is_empty())
        });
        match is_usable {
            true => Ok(Some(url)),
            false => Err(Error::new(name, "it must be a URL such as http://collector.example:4318")),
        }
    }

    fn check_sampler(&self) -> Result<(), Error> {
        let sampler = self.one_of(SAMPLER, &SAMPLERS)?;
        let Some(argument) = self.value(SAMPLER_ARG) else { return Ok(()) };
        let is_ratio = argument.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
        if !is_ratio && sampler.is_some_and(|sampler| sampler.ends_with("ratio")) {
            return Err(Error::new(SAMPLER_ARG, "it must be a number from 0 to 1"));
        }
        Ok(())
    }

    /// Pairs `key=value`, separated by commas.
    fn check_pairs(&self, name: &str, is_key: impl Fn(&str) -> bool) -> Result<(), Error> {
        let Some(pairs) = self.value(name) else { return Ok(()) };
        let is_pair = |pair: &str| {
            pair.trim().is_empty()
                || pair.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty() && is_key(key.trim()))
        };
        match pairs.split(',').all(is_pair) {
            true => Ok(()),
            false => Err(Error::new(name, "it must be pairs key=value, separated by commas")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        Settings::read(|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn off_without_an_endpoint_or_by_request() {
        for variables in [
            &[][..],
            &[(BASE, "")],
            &[(SERVICE_NAME, "x"), (SAMPLER, "always_on")],
            &[(BASE, "http://c.example:4318"), (DISABLED, "True")],
            &[(BASE, "http://c.example:4318"), (EXPORTER, "none")],
        ] {
            assert_eq!(read(variables), Ok(None), "{variables:?}");
        }
    }

    #[test]
    fn endpoint_of_traces_wins_and_is_used_as_it_is() {
        let endpoint = |variables: &[_]| read(variables).unwrap().unwrap().endpoint;
        assert_eq!(endpoint(&[(BASE, "http://c.example:4318/")]), "http://c.example:4318/v1/traces");
        assert_eq!(
            endpoint(&[(BASE, "https://c.example/otlp"), (EXPORTER, "otlp")]),
            "https://c.example/otlp/v1/traces"
        );
        assert_eq!(
            endpoint(&[(BASE, "http://c.example"), (TRACES, "http://d.example/in")]),
            "http://d.example/in"
        );
    }

    #[test]
    fn values_are_read() {
        let settings = read(&[
            (BASE, "http://c.example"),
            (DISABLED, "false"),
            (SERVICE_NAME, "mine"),
            (RESOURCE, "a=b, deployment.environment.name=test"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.crt"),
            (SAMPLER, "parentbased_traceidratio"),
            (SAMPLER_ARG, "0.25"),
            (QUEUE, "100"),
            (BATCH, "100"),
        ]);
        let expected = Settings {
            endpoint: "http://c.example/v1/traces".to_owned(),
            certificate: Some("/ca.crt".into()),
            timeout: Duration::from_millis(500),
            queue: 100,
            service_name: Some("mine".to_owned()),
        };
        assert_eq!(settings, Ok(Some(expected)));
    }

    #[test]
    fn unusable_values_are_errors_that_name_the_variable_only() {
        for (name, value) in [
            (DISABLED, "yes"),
            (EXPORTER, "console"),
            (TRACES, "collector:4318"),
            (TRACES, "http://"),
            (TRACES, "ftp://collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hush-hush"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "not a name=hush"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            (RESOURCE, "team"),
            (SAMPLER, "sometimes"),
            (QUEUE, "-1"),
            (BATCH, "4096"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ] {
            let error = read(&[(BASE, "http://c.example"), (name, value)]).unwrap_err();
            assert_eq!(error.variable, name);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let wrong_ratio = read(&[(BASE, "http://c.example"), (SAMPLER, "traceidratio"), (SAMPLER_ARG, "25")]);
        assert_eq!(wrong_ratio.unwrap_err().variable, SAMPLER_ARG);
        assert_eq!(read(&[(EXPORTER, "otlp")]).unwrap_err().variable, EXPORTER);
    }
}
