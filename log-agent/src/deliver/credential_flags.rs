//! The flags for the agent's credentials and for the roots that it trusts: for all of them, or for one by its name.

use std::path::PathBuf;

use super::credentials::CredentialFiles;
use super::spec::{ForSink, SinkSpec, for_sink};
use super::url::SinkUrl;

/// Files, and the user who has no secret.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CredentialFlags {
    /// CA certificates (PEM) to use instead of the built-in roots, behind https and forward+tls. This and the files below: for all
    /// sinks, or for one of them, by its name; read again when they change
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    ca_file: Vec<ForSink<PathBuf>>,

    /// Certificate (PEM, with its chain) to show to receivers that ask for one
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    client_cert_file: Vec<ForSink<PathBuf>>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    client_key_file: Vec<ForSink<PathBuf>>,

    /// Headers of every HTTP request, one a line, such as X-Scope-OrgID: tenant
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    header_file: Vec<ForSink<PathBuf>>,

    /// Bearer token of every HTTP request
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    bearer_token_file: Vec<ForSink<PathBuf>>,

    /// User and password of every HTTP request, written user:password
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    basic_auth_file: Vec<ForSink<PathBuf>>,

    /// The shared_key of Forward receivers that ask for one
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    forward_shared_key_file: Vec<ForSink<PathBuf>>,

    /// User at Forward receivers that have users
    #[arg(long, value_name = "[NAME=]USER", value_delimiter = ',')]
    forward_user: Vec<ForSink<String>>,

    /// The user's password
    #[arg(long, value_name = "[NAME=]FILE", value_delimiter = ',')]
    forward_password_file: Vec<ForSink<PathBuf>>,
}

impl CredentialFlags {
    /// Checks what single flags cannot: an error is a sentence for the user.
    pub(crate) fn validate(&self, sinks: &[SinkSpec]) -> Result<(), String> {
        for (flag, sink) in self.named() {
            if !sinks.iter().any(|spec| spec.name() == *sink) {
                return Err(format!("{flag} {sink}=…: no --sink is called so; write --sink {sink}=URL"));
            }
        }
        let over_http = |spec: &&SinkSpec| matches!(spec.url, SinkUrl::Ndjson(_) | SinkUrl::Otlp(_));
        let several = sinks.iter().filter(over_http).count() > 1;
        for (flag, values) in [
            ("--header-file", &self.header_file),
            ("--bearer-token-file", &self.bearer_token_file),
            ("--basic-auth-file", &self.basic_auth_file),
        ] {
            // SECURITY: what is for one receiver is not shown to another.
            if several && values.iter().any(|value| value.sink.is_none()) {
                return Err(format!(
                    "{flag} has to say for which of the sinks it is: {flag} NAME=FILE with --sink NAME=URL"
                ));
            }
        }
        sinks.iter().try_for_each(|spec| self.validate_sink(spec))
    }

    fn named(&self) -> Vec<(&'static str, &String)> {
        let files = [
            ("--ca-file", &self.ca_file),
            ("--client-cert-file", &self.client_cert_file),
            ("--client-key-file", &self.client_key_file),
            ("--header-file", &self.header_file),
            ("--bearer-token-file", &self.bearer_token_file),
            ("--basic-auth-file", &self.basic_auth_file),
            ("--forward-shared-key-file", &self.forward_shared_key_file),
            ("--forward-password-file", &self.forward_password_file),
        ];
        let users = self.forward_user.iter().filter_map(|user| Some(("--forward-user", user.sink.as_ref()?)));
        let files = files.into_iter().flat_map(|(flag, values)| {
            values.iter().filter_map(move |value| Some((flag, value.sink.as_ref()?)))
        });
        files.chain(users).collect()
    }

    fn validate_sink(&self, spec: &SinkSpec) -> Result<(), String> {
        let (name, files) = (spec.name(), self.files(spec));
        let refused = |why: &str| Err(format!("--sink {name} {why}"));
        if files.client_cert.is_some() != files.client_key.is_some() {
            return refused("needs both --client-cert-file and --client-key-file, or neither");
        }
        if files.user.is_some() != files.password.is_some() {
            return refused("needs both --forward-user and --forward-password-file, or neither");
        }
        if files.user.is_some() && files.shared_key.is_none() {
            return refused(
                "has a --forward-user and needs --forward-shared-key-file, too: the user is part of that handshake",
            );
        }
        if files.bearer_token.is_some() && files.basic_auth.is_some() {
            return refused("can have --bearer-token-file or --basic-auth-file, but not both");
        }
        if (files.bearer_token.is_some() || files.basic_auth.is_some()) && spec.url.has_user() {
            return refused(
                "has a user in its URL already; leave it out, or --bearer-token-file and --basic-auth-file",
            );
        }
        Ok(())
    }

    /// Those of a sink; of flags that are not for its kind, none.
    pub(crate) fn files(&self, spec: &SinkSpec) -> CredentialFiles {
        let name = spec.name();
        let file = |values: &[ForSink<PathBuf>]| for_sink(values, &name).cloned();
        let tls = CredentialFiles {
            ca: file(&self.ca_file),
            client_cert: file(&self.client_cert_file),
            client_key: file(&self.client_key_file),
            ..CredentialFiles::default()
        };
        match &spec.url {
            SinkUrl::Stdout(_) | SinkUrl::File(..) => CredentialFiles::default(),
            SinkUrl::Ndjson(_) | SinkUrl::Otlp(_) => CredentialFiles {
                headers: file(&self.header_file),
                bearer_token: file(&self.bearer_token_file),
                basic_auth: file(&self.basic_auth_file),
                ..tls
            },
            SinkUrl::Forward(_) => CredentialFiles {
                shared_key: file(&self.forward_shared_key_file),
                user: for_sink(&self.forward_user, &name).cloned(),
                password: file(&self.forward_password_file),
                ..tls
            },
        }
    }
}
