//! Pairing without a screen and a person: BlueZ asks an agent, this is ours.
//!
//! Not bluer's: its agent without callbacks has the capability NoInputNoOutput and then rejects each request, and with callbacks
//! it claims a display and keys (bluer PR #190). Two machines that both claim a display and keys, and both say yes to the
//! number, would get keys that count as authenticated although nobody looked.

use std::sync::Arc;
use std::time::Duration;

use dbus::channel::MatchingReceiver;
use dbus::message::MatchRule;
use dbus::nonblock::{Proxy, SyncConnection};
use dbus::{MethodErr, Path};
use dbus_crossroads::Crossroads;
use futures_util::future::BoxFuture;
use tracing::{info, warn};

use super::adapter::Adapter;
use super::daemon::{ANSWER_LIMIT, answer};
use super::error::BluetoothError;

const PATH: &str = "/org/gattway/agent";
const MANAGER: &str = "org.bluez.AgentManager1";

/// Who may pair, and how.
#[derive(Clone)]
#[non_exhaustive]
pub enum Pairing {
    /// Nobody: only devices that are bonded already.
    Refused,
    /// Whoever asks, without a code (Just Works): encrypted, but nobody knows with whom.
    JustWorks,
    /// The other side has to type the code that `show` is given: this side has a display, a log will do.
    Show(Arc<dyn Fn(&Passkey) + Send + Sync>),
    /// Whatever the other side wants: no code, or the one that it shows, which somebody types here when asked for that of a
    /// peer; `None` gives up. BlueZ waits for about half a minute.
    Type(Arc<dyn Fn(String) -> BoxFuture<'static, Option<u32>> + Send + Sync>),
}

/// A code of six digits that one side shows and the other one types.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passkey {
    /// Whom it is for, its address.
    pub peer: String,
    /// The code, 0 to 999999.
    pub code: u32,
}

impl Pairing {
    fn capability(&self) -> &'static str {
        match self {
            Pairing::Refused | Pairing::JustWorks => "NoInputNoOutput",
            Pairing::Show(_) => "DisplayOnly",
            Pairing::Type(_) => "KeyboardOnly",
        }
    }
}

/// The agent while it is registered: BlueZ's default for pairings that nobody else began. Dropping it takes it away.
pub struct PairingAgent {
    connection: Arc<SyncConnection>,
    receiver: dbus::channel::Token,
}

impl PairingAgent {
    /// Registers the agent with the daemon of `adapter`.
    ///
    /// # Errors
    /// [`BluetoothError`]; nothing is registered then.
    pub async fn register(adapter: &Adapter, pairing: Pairing) -> Result<PairingAgent, BluetoothError> {
        let connection = Arc::clone(adapter.daemon().connection());
        let capability = pairing.capability();
        let mut objects = objects(pairing);
        objects.set_async_support(Some((
            Arc::clone(&connection) as _,
            Box::new(|answering| {
                tokio::spawn(answering);
            }),
        )));
        let receiver = connection.start_receive(
            MatchRule::new_method_call().with_path(PATH),
            Box::new(move |message, connection| objects.handle_message(message, connection).is_ok()),
        );
        let agent = PairingAgent { connection: Arc::clone(&connection), receiver };
        answer("registering a pairing agent", async {
            let failed = |e: dbus::Error| BluetoothError::bluez("register a pairing agent")(e.into());
            let manager = Proxy::new("org.bluez", "/org/bluez", ANSWER_LIMIT, &*connection);
            // One of before, of the same process.
            let _: Result<(), dbus::Error> =
                manager.method_call(MANAGER, "UnregisterAgent", (Path::from(PATH),)).await;
            let () = (manager.method_call(MANAGER, "RegisterAgent", (Path::from(PATH), capability)).await)
                .map_err(failed)?;
            let () = manager
                .method_call(MANAGER, "RequestDefaultAgent", (Path::from(PATH),))
                .await
                .map_err(failed)?;
            Ok(())
        })
        .await?;
        Ok(agent)
    }
}

impl Drop for PairingAgent {
    fn drop(&mut self) {
        let _ = self.connection.stop_receive(self.receiver);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let connection = Arc::clone(&self.connection);
        runtime.spawn(async move {
            let manager = Proxy::new("org.bluez", "/org/bluez", Duration::from_secs(1), &*connection);
            let _: Result<(), dbus::Error> =
                manager.method_call(MANAGER, "UnregisterAgent", (Path::from(PATH),)).await;
        });
    }
}

/// `.../dev_AA_BB_CC_DD_EE_FF` as an address.
fn peer(device: &Path<'_>) -> String {
    device.rsplit("dev_").next().unwrap_or_default().replace('_', ":")
}

fn rejected() -> MethodErr {
    MethodErr::from(("org.bluez.Error.Rejected", "gattway does not pair so"))
}

/// The agent's object. Each method returns at once, but for that which asks a person.
fn objects(pairing: Pairing) -> Crossroads {
    let mut objects = Crossroads::new();
    let interface = objects.register("org.bluez.Agent1", |b| {
        b.method("Release", (), (), |_, _: &mut Pairing, ()| Ok(()));
        b.method("Cancel", (), (), |_, _, ()| Ok(()));
        b.method("RequestPinCode", ("device",), ("pincode",), |_, _, (_,): (Path<'_>,)| {
            Err::<(String,), _>(rejected()) // of Bluetooth before 2.1
        });
        b.method("DisplayPinCode", ("device", "pincode"), (), |_, _, (_, _): (Path<'_>, String)| {
            Err::<(), _>(rejected())
        });
        b.method_with_cr_async(
            "RequestPasskey",
            ("device",),
            ("passkey",),
            |mut context, objects, (device,): (Path<'static>,)| {
                let pairing = objects.data_mut::<Pairing>(context.path()).cloned();
                async move {
                    let code = match pairing {
                        Some(Pairing::Type(ask)) => ask(peer(&device)).await,
                        _ => None,
                    };
                    context.reply(code.map(|code| (code,)).ok_or_else(rejected))
                }
            },
        );
        let arguments = ("device", "passkey", "entered");
        b.method(
            "DisplayPasskey",
            arguments,
            (),
            |_, pairing, (device, code, entered): (Path<'_>, u32, u16)| {
                let Pairing::Show(show) = pairing else { return Err(rejected()) };
                // Comes again for each digit that is typed.
                if entered == 0 {
                    show(&Passkey { peer: peer(&device), code });
                }
                Ok(())
            },
        );
        b.method("RequestConfirmation", ("device", "passkey"), (), |_, _, (_, _): (Path<'_>, u32)| {
            Err::<(), _>(rejected()) // a number to compare, and nobody who looks
        });
        b.method("RequestAuthorization", ("device",), (), |_, pairing, (device,): (Path<'_>,)| {
            let peer = peer(&device);
            match pairing {
                // Where a code may be typed, the peer may also be one that has none to show.
                Pairing::JustWorks | Pairing::Type(_) => {
                    info!(peer, "paired without a code");
                    Ok(())
                }
                _ => {
                    warn!(peer, "asked to pair without a code: refused");
                    Err(rejected())
                }
            }
        });
        b.method("AuthorizeService", ("device", "uuid"), (), |_, _, (_, _): (Path<'_>, String)| Ok(()));
    });
    objects.insert(PATH, &[interface], pairing);
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_is_what_this_side_can_do() {
        let show: Arc<dyn Fn(&Passkey) + Send + Sync> = Arc::new(|_| {});
        let ask = Arc::new(|_: String| -> BoxFuture<'static, Option<u32>> { Box::pin(async { None }) });
        let claims = [Pairing::Refused, Pairing::JustWorks, Pairing::Show(show), Pairing::Type(ask)]
            .map(|pairing| pairing.capability());
        assert_eq!(claims, ["NoInputNoOutput", "NoInputNoOutput", "DisplayOnly", "KeyboardOnly"]);
    }

    #[test]
    fn a_device_is_named_by_its_address() {
        assert_eq!(peer(&Path::from("/org/bluez/hci0/dev_00_AA_01_00_00_01")), "00:AA:01:00:00:01");
    }
}
