//! Asks our Workload API what applications in Rust ask, through the crate `spiffe`, and prints a JSON line per answer.
//!
//! spiffe-client x509|jwt|validate|watch SOCKET [AUDIENCE [TOKEN]]
use futures_util::StreamExt;
use serde_json::{json, Value};
use spiffe::{WorkloadApiClient, X509Context};
use std::error::Error;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn describe(context: &X509Context) -> Value {
    let svids: Vec<Value> = context
        .svids()
        .iter()
        .map(|svid| {
            json!({
                "spiffeId": svid.spiffe_id().to_string(),
                "hint": svid.hint().unwrap_or(""),
                "chain": svid.cert_chain().len(),
                "leaf": hex(svid.leaf().as_bytes()),
            })
        })
        .collect();
    let bundles: Vec<Value> = context
        .bundle_set()
        .iter()
        .map(|(name, bundle)| json!({"trustDomain": name.to_string(), "x509Authorities": bundle.authorities().len()}))
        .collect();
    json!({"svids": svids, "bundles": bundles})
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let word = |index: usize| arguments.get(index).map_or("", String::as_str);
    let client = WorkloadApiClient::connect_to(word(2)).await?;
    match word(1) {
        "x509" => println!("{}", describe(&client.fetch_x509_context().await?)),
        "jwt" => {
            let svid = client.fetch_jwt_svid([word(3)], None).await?;
            println!("{}", json!({"spiffeId": svid.spiffe_id().to_string(), "token": svid.token()}));
        }
        "validate" => {
            let svid = client.validate_jwt_token(word(3), word(4)).await?;
            let bundles = client.fetch_jwt_bundles().await?;
            let known = bundles.iter().any(|(name, _)| name == svid.spiffe_id().trust_domain());
            println!("{}", json!({"spiffeId": svid.spiffe_id().to_string(), "bundle": known}));
        }
        "watch" => loop {
            match client.stream_x509_contexts().await {
                Ok(mut updates) => {
                    while let Some(update) = updates.next().await {
                        match update {
                            Ok(context) => println!("{}", describe(&context)),
                            Err(error) => println!("{}", json!({"watchError": format!("{error:?}")})),
                        }
                    }
                }
                Err(error) => println!("{}", json!({"watchError": format!("{error:?}")})),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        },
        other => return Err(format!("no command `{other}`").into()),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Err(error) = run(&arguments).await {
        println!("{}", json!({"error": format!("{error:?}")}));
        std::process::exit(1);
    }
}
