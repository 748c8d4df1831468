//! Accounts of one host: what each has of its own, and what a policy lets one do with another's
//! functions.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{config, named, zip};
use lambda_host::{Account, Error, Host, NewLayer, ThrottleLimit};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};

const OWN: &str = "123456789012";
const OTHER: &str = "222222222222";

/// Both functions answer with the event that they got, `f` after a second.
fn backend() -> FakeBackend {
    let echo = |invocation: &Invocation| FakeAnswer::success(invocation.payload.clone());
    let slow = move |invocation: &Invocation| echo(invocation).after(Duration::from_secs(1));
    FakeBackend::new().with_handler("f", slow).with_handler("g", echo)
}

async fn start(folder: &Path, accounts: Vec<Account>) -> Host {
    let mut builder = Host::builder(Arc::new(backend())).with_data_folder(folder);
    for account in accounts {
        builder = builder.with_account(account);
    }
    builder.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_account_has_its_own_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let other = || Account::new(OTHER).unwrap().with_weight(50).with_concurrency(2);
    {
        let host = start(folder.path(), vec![other()]).await;
        let theirs = host.account(OTHER).unwrap();
        assert!(host.account("333333333333").is_none());
        host.deploy(config(), zip("own")).await.unwrap();
        theirs.deploy(config().with_memory_mb(256), zip("theirs")).await.unwrap();
        theirs.deploy(named("g"), zip("theirs")).await.unwrap();
        let layer = NewLayer::default();
        theirs.publish_layer("l", layer, zip("layer")).await.unwrap();
        assert!(matches!(host.function("g"), Err(Error::FunctionNotFound { .. })));
        assert!(host.layer_versions("l").is_empty() && theirs.layer_versions("l").len() == 1);
        let arn = theirs.arns().function(&theirs.function("f").unwrap().config.name);
        assert!(matches!(host.function(arn.as_str()), Err(Error::Elsewhere { .. })));
        assert_eq!(theirs.function(arn.as_str()).unwrap().config.memory_mb, 256);
        assert_eq!((host.functions_count(), theirs.functions_count()), (1, 2));

        // The limit of one is not the other's.
        let calls = async |host: &Host, count: usize| {
            let calls = (0..count).map(|_| {
                let host = host.clone();
                tokio::spawn(async move { host.invoke("f", "{}").await })
            });
            let mut throttled = 0;
            for call in calls.collect::<Vec<_>>() {
                match call.await.unwrap() {
                    Ok(_) => {}
                    Err(Error::Throttled { limit: ThrottleLimit::AccountConcurrency }) => {
                        throttled += 1
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            throttled
        };
        assert_eq!(calls(&theirs, 5).await, 3);
        assert_eq!(calls(&host, 5).await, 0);

        // An event is run for the account that it was accepted for.
        let id = theirs.invoke_event("g", r#""event""#).await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(host.events_waiting(), 0);
        // Lines are written by a thread.
        let logged = |host: &Host, group: &str| {
            let streams = host.logs().streams(group).unwrap();
            let mut lines = Vec::new();
            for stream in streams {
                lines.extend(host.logs().events(group, &stream.name).unwrap());
            }
            lines.iter().any(|line| line.message.contains(&id))
        };
        for _ in 0..300 {
            if logged(&theirs, "/aws/lambda/g") {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(logged(&theirs, "/aws/lambda/g") && !logged(&host, "/aws/lambda/g"));
        host.shutdown().await;
    }
    // An account that is not named any more keeps its functions and their code.
    for accounts in [Vec::new(), vec![other()]] {
        let host = start(folder.path(), accounts).await;
        let theirs = host.account(OTHER).unwrap();
        assert_eq!(theirs.function("f").unwrap().config.memory_mb, 256);
        assert_eq!(theirs.invoke("g", "7").await.unwrap().payload, "7");
        assert_eq!((host.functions_count(), host.account(OWN).unwrap().functions_count()), (1, 1));
        host.shutdown().await;
    }
}

#[tokio::test]
async fn accounts_that_cannot_be_are_refused() {
    let twice = [OTHER, OTHER].map(|it| Account::new(it).unwrap());
    let own = [Account::new(OWN).unwrap()];
    for accounts in [twice.to_vec(), own.to_vec()] {
        let mut builder = Host::builder(Arc::new(backend()));
        for account in accounts {
            builder = builder.with_account(account);
        }
        assert!(matches!(builder.start().await, Err(Error::Parameter { .. })));
    }
}

#[cfg(feature = "keys")]
mod calls {
    use super::*;

    use std::time::SystemTime;

    use aws_cred_chain::Credentials;
    use aws_cred_chain::sign::Signer;
    use lambda_host::http::{Keys, Server};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    struct Served {
        address: std::net::SocketAddr,
    }

    impl Served {
        async fn start(host: Host) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let keys = Keys::new("us-east-1")
                .with_key("OWN", "s1")
                .with_key_of(OTHER, "OTHER", "s2")
                .with_key_of("999999999999", "NOBODY", "s3");
            let server = Server::api(host).with_keys(keys).with_url_path("/urls");
            drop(tokio::spawn(server.serve(listener, std::future::pending())));
            Self { address }
        }

        /// Sends a request, signed by a key unless its name is empty.
        async fn call(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
            let body = match body {
                Value::Null => String::new(),
                body => body.to_string(),
            };
            let mut request = http::Request::builder()
                .method(method)
                .uri(format!("http://{}{path}", self.address))
                .header("host", self.address.to_string())
                .body(())
                .unwrap();
            let secret = match key {
                "OWN" => "s1",
                "OTHER" => "s2",
                _ => "s3",
            };
            if !key.is_empty() {
                let credentials = Credentials::new(key, secret);
                let now = SystemTime::now();
                let signer = Signer::new(&credentials, "us-east-1", "lambda", now);
                signer.sign(&mut request, body.as_bytes()).unwrap();
            }
            let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
            for (name, value) in request.headers() {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
            head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let status = answer[9..12].parse().unwrap();
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            (status, serde_json::from_str(body).unwrap_or(Value::Null))
        }
    }

    #[tokio::test]
    async fn a_key_is_of_one_account_and_a_policy_lets_others_in() {
        let folder = tempfile::tempdir().unwrap();
        let host = start(folder.path(), vec![Account::new(OTHER).unwrap()]).await;
        host.deploy(named("g"), zip("1")).await.unwrap();
        let served = Served::start(host).await;
        let none = Value::Null;
        let functions = "/2015-03-31/functions";
        let count = |listed: &Value| listed["Functions"].as_array().unwrap().len();
        let (_, own) = served.call("OWN", "GET", functions, &none).await;
        let (_, others) = served.call("OTHER", "GET", functions, &none).await;
        assert_eq!((count(&own), count(&others)), (1, 0));
        let (status, answer) = served.call("NOBODY", "GET", functions, &none).await;
        assert_eq!(status, 403, "{answer}");
        assert_eq!(served.call("OTHER", "GET", &format!("{functions}/g"), &none).await.0, 404);

        // By ARN it is refused, until the function's policy allows it.
        let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Ag";
        let invoke = format!("{functions}/{arn}/invocations");
        let (status, answer) = served.call("OTHER", "POST", &invoke, &json!(1)).await;
        assert_eq!(status, 403);
        assert!(answer["message"].as_str().unwrap().contains("lambda:InvokeFunction"), "{answer}");
        let permission = |id: &str, action: &str, auth: Option<&str>| {
            let mut it = json!({ "StatementId": id, "Action": action, "Principal": OTHER });
            if let Some(auth) = auth {
                it["FunctionUrlAuthType"] = auth.into();
            }
            it
        };
        let policy = format!("{functions}/g/policy");
        let invoking = permission("a", "lambda:InvokeFunction", None);
        assert_eq!(served.call("OWN", "POST", &policy, &invoking).await.0, 201);
        assert_eq!(served.call("OTHER", "POST", &invoke, &json!(1)).await, (200, json!(1)));
        // What the policy does not say stays refused.
        for (method, path) in [("GET", arn), ("DELETE", arn), ("GET", &format!("{arn}/policy"))] {
            let (status, answer) =
                served.call("OTHER", method, &format!("{functions}/{path}"), &none).await;
            assert_eq!(status, 403, "{method} {path}: {answer}");
        }
        let (status, _) = served.call("OWN", "DELETE", &format!("{policy}/a"), &none).await;
        assert_eq!(status, 204);
        assert_eq!(served.call("OTHER", "POST", &invoke, &json!(1)).await.0, 403);
    }

    #[tokio::test]
    async fn a_function_url_takes_signatures_of_its_account_and_of_those_that_the_policy_names() {
        let folder = tempfile::tempdir().unwrap();
        let host = start(folder.path(), vec![Account::new(OTHER).unwrap()]).await;
        let theirs = host.account(OTHER).unwrap();
        theirs.deploy(named("g"), zip("1")).await.unwrap();
        let served = Served::start(host).await;
        let none = Value::Null;
        let url = json!({ "AuthType": "AWS_IAM" });
        let (status, url) = served.call("OTHER", "POST", "/2021-10-31/functions/g/url", &url).await;
        assert_eq!(status, 201, "{url}");
        let url = url["FunctionUrl"].as_str().unwrap();
        let path = format!("/{}x", url.splitn(4, '/').nth(3).unwrap());
        for stranger in ["", "OWN", "NOBODY"] {
            assert_eq!(served.call(stranger, "GET", &path, &none).await.0, 403, "{stranger:?}");
        }
        let (status, event) = served.call("OTHER", "GET", &path, &none).await;
        assert_eq!(status, 200, "{event}");
        assert_eq!(event["rawPath"], "/x");
        assert_eq!(event["requestContext"]["authorizer"]["iam"]["accountId"], OTHER);
        assert_eq!(event["requestContext"]["authorizer"]["iam"]["accessKey"], "OTHER");

        let permission = json!({ "StatementId": "a", "Action": "lambda:InvokeFunctionUrl",
            "Principal": OWN, "FunctionUrlAuthType": "AWS_IAM" });
        let policy = "/2015-03-31/functions/g/policy";
        assert_eq!(served.call("OTHER", "POST", policy, &permission).await.0, 201);
        assert_eq!(served.call("OWN", "GET", &path, &none).await.0, 200);
        assert_eq!(served.call("", "GET", &path, &none).await.0, 403);
    }
}
