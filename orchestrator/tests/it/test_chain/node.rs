//! The JSON-RPC side of the test chain.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use soketto::handshake::Server;
use soketto::handshake::server::Response;
use subxt::ext::codec::{Decode as _, Encode as _};
use subxt::utils::H256;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::state::World;
use super::{Fault, Shared};

/// Serves every connection until it is aborted.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let mut server = Server::new(stream.compat());
    let Ok(request) = server.receive_request().await else { return };
    let key = request.key();
    let response = Response::Accept { key, protocol: None };
    if server.send_response(&response).await.is_err() {
        return;
    }
    let (mut sender, mut receiver) = server.into_builder().finish();
    let (answers, mut to_send) = unbounded_channel::<String>();
    let mut tasks = JoinSet::new();
    let mut subscriptions = 0;
    let reading = async {
        let mut message = Vec::new();
        loop {
            message.clear();
            if receiver.receive_data(&mut message).await.is_err() {
                return;
            }
            let request: Json = serde_json::from_slice(&message).unwrap();
            if !answer(&request, &shared, &answers, &mut tasks, &mut subscriptions) {
                return;
            }
        }
    };
    let writing = async {
        while let Some(text) = to_send.recv().await {
            if sender.send_text(text).await.is_err() || sender.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        _ = cuts.changed() => {}
    }
}

/// Answers a request; false closes the connection.
fn answer(
    request: &Json,
    shared: &Arc<Shared>,
    answers: &UnboundedSender<String>,
    tasks: &mut JoinSet<()>,
    subscriptions: &mut u64,
) -> bool {
    let (method, params) = (request["method"].as_str().unwrap(), &request["params"]);
    let id = &request["id"];
    // What a runtime is asked goes by its own name.
    let name = match method {
        "state_call" => params[0].as_str().unwrap(),
        other => other,
    };
    shared.log.lock().unwrap().push(name.to_owned());
    let send = |document: Json| answers.send(document.to_string()).is_ok();
    let result = |result: Json| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    if let Some(fault) = fault(shared, name) {
        return match fault {
            Fault::Drop => false,
            Fault::Silence => true,
            Fault::Text(text) => answers.send(text).is_ok(),
            Fault::Huge(bytes) => send(result(json!("0".repeat(bytes)))),
            Fault::Bytes(bytes) => send(result(hex(&bytes))),
            Fault::Error(code, message) => send(json!({
                "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message },
            })),
        };
    }
    if method.contains("ubscribe") || method == "author_submitAndWatchExtrinsic" {
        return subscribe(request, shared, answers, tasks, subscriptions);
    }
    let world = shared.world.lock().unwrap();
    match call(&world, method, params) {
        Some(value) => send(result(value)),
        None => send(json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": { "code": -32601, "message": format!("Method {name} is not found") },
        })),
    }
}

fn fault(shared: &Shared, name: &str) -> Option<Fault> {
    let mut faults = shared.faults.lock().unwrap();
    let (fault, times) = faults.get_mut(name)?;
    match times {
        Some(0) => None,
        Some(times) => {
            *times -= 1;
            Some(fault.clone())
        }
        None => Some(fault.clone()),
    }
}

fn hex(bytes: &[u8]) -> Json {
    json!(format!("0x{}", orchestrator::hex::encode(bytes)))
}

fn bytes(text: &Json) -> Vec<u8> {
    let text = text.as_str().unwrap().trim_start_matches("0x");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).unwrap()).collect()
}

fn hash(text: &Json) -> Option<H256> {
    text.as_str().map(|_| H256::from_slice(&bytes(text)))
}

/// The newest finalized block.
fn finalized(world: &World) -> usize {
    world.blocks.len() - 1 - usize::try_from(world.lag).unwrap()
}

fn call(world: &World, method: &str, params: &Json) -> Option<Json> {
    let newest = &world.blocks[finalized(world)];
    Some(match method {
        "chain_getBlockHash" => match params[0].as_u64() {
            Some(0) => json!(world.genesis),
            number => {
                let block = world.blocks.iter().find(|b| Some(b.header.number) == number);
                json!(block.map(|block| block.hash))
            }
        },
        "chain_getFinalizedHead" => json!(newest.hash),
        "chain_getHeader" => match hash(&params[0]) {
            Some(hash) => json!(world.at(hash).map(|block| &block.header)),
            None => json!(world.blocks.last().map(|block| &block.header)),
        },
        "chain_getBlock" => {
            let block = world.at(hash(&params[0])?)?;
            let extrinsics: Vec<Json> = block.extrinsics.iter().map(|x| hex(x)).collect();
            json!({
                "block": { "header": block.header, "extrinsics": extrinsics },
                "justifications": null,
            })
        }
        // Only the events are read one at a time.
        "state_getStorage" => hex(&world.at(hash(&params[1])?)?.events),
        "state_queryStorageAt" => {
            let block = world.at(hash(&params[1])?)?;
            let storage = world.storage(&block.runtime);
            let keys = params[0].as_array()?.iter();
            let changes: Vec<Json> = keys
                .map(|key| json!([key, storage.get(&bytes(key)).map(|value| hex(value))]))
                .collect();
            json!([{ "block": block.hash, "changes": changes }])
        }
        "state_call" => {
            let block = world.at(hash(&params[2])?)?;
            let arguments = bytes(&params[1]);
            hex(&runtime_call(world, &block.runtime, params[0].as_str()?, &arguments)?)
        }
        _ => return None,
    })
}

fn runtime_call(
    world: &World,
    runtime: &super::Runtime,
    name: &str,
    arguments: &[u8],
) -> Option<Vec<u8>> {
    let version = runtime.metadata_version();
    let netuid = || u16::decode(&mut &*arguments).ok();
    match name {
        "Core_version" => Some(runtime.core_version()),
        // A node of metadata 14 alone has the old way alone.
        "Metadata_metadata" => Some(runtime.bytes.encode()),
        "Metadata_metadata_versions" if version > 14 => Some(vec![version, u32::MAX].encode()),
        "Metadata_metadata_at_version" if version > 14 => {
            let asked = u32::decode(&mut &*arguments).ok()?;
            Some((asked == version).then_some(&runtime.bytes).encode())
        }
        "AccountNonceApi_account_nonce" => Some(world.calls.encode()),
        "TaggedTransactionQueue_validate_transaction" => {
            // The source before it, and a block hash after it.
            Some(world.validity(&arguments[1..arguments.len() - 32]))
        }
        "SubnetInfoRuntimeApi_get_metagraph" => world.metagraph(runtime, netuid()?),
        "NeuronInfoRuntimeApi_get_neurons_lite" => world.neurons_lite(runtime, netuid()?),
        _ => None,
    }
}

fn subscribe(
    request: &Json,
    shared: &Arc<Shared>,
    answers: &UnboundedSender<String>,
    tasks: &mut JoinSet<()>,
    subscriptions: &mut u64,
) -> bool {
    let (method, id) = (request["method"].as_str().unwrap(), &request["id"]);
    let send = |document: Json| answers.send(document.to_string()).is_ok();
    if method.contains("nsubscribe") || method == "author_unwatchExtrinsic" {
        return send(json!({ "jsonrpc": "2.0", "id": id, "result": true }));
    }
    *subscriptions += 1;
    let number = format!("s{subscriptions}");
    let accepted = json!({ "jsonrpc": "2.0", "id": id, "result": number });
    if method == "author_submitAndWatchExtrinsic" {
        let included = shared.world.lock().unwrap().include(bytes(&request["params"][0]));
        shared.news.send_modify(|news| *news += 1);
        return match included {
            Err(code) => send(json!({ "jsonrpc": "2.0", "id": id, "error": {
                "code": 1010, "message": "Invalid Transaction",
                "data": format!("Custom error: {code}"),
            } })),
            Ok(hash) => {
                let steps =
                    [json!("ready"), json!({ "inBlock": hash }), json!({ "finalized": hash })];
                let told = |step| notification("author_extrinsicUpdate", &number, step);
                send(accepted) && steps.into_iter().all(|step| send(told(step)))
            }
        };
    }
    let heads = method == "chain_subscribeFinalizedHeads";
    // First: who subscribes knows its notifications by this answer.
    if !send(accepted) {
        return false;
    }
    let (shared, answers) = (shared.clone(), answers.clone());
    tasks.spawn(async move {
        let mut news = shared.news.subscribe();
        let mut last = Json::Null;
        loop {
            let (name, now) = {
                let world = shared.world.lock().unwrap();
                if heads {
                    let newest = &world.blocks[finalized(&world)];
                    ("chain_finalizedHead", json!(newest.header))
                } else {
                    let runtime = world.runtime();
                    let version = super::runtime::TRANSACTION_VERSION;
                    let spec = json!({
                        "specVersion": runtime.spec_version, "transactionVersion": version,
                    });
                    ("state_runtimeVersion", spec)
                }
            };
            if now != last {
                last = now.clone();
                if answers.send(notification(name, &number, now).to_string()).is_err() {
                    return;
                }
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    });
    true
}

fn notification(method: &str, subscription: &str, result: Json) -> Json {
    json!({
        "jsonrpc": "2.0",
        "method": method,
        "params": { "subscription": subscription, "result": result },
    })
}
