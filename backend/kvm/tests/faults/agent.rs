//! The guest's agent takes devices that come while it runs, and lets go of them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use backend_api::conformance::guest;
use backend_api::{Device, Disk, Image, Place, SpareDevices, Vm};
use cofferdam_protocol::link::Link;
use cofferdam_protocol::ttrpc::{Code, Error};
use cofferdam_protocol::{
    AgentClient, DeviceRequest, HelloRequest, PROTOCOL_VERSION, PlugDeviceResponse, connect_agent,
    no_deadline,
};
use tokio::time::timeout;

use crate::scene::{LIMIT, case};

/// The guest's image with its agent.
fn image() -> PathBuf {
    let built = "../../target/cofferdam/lib/cofferdam/initramfs.cpio";
    std::env::var_os("COFFERDAM_INITRAMFS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(built),
        PathBuf::from,
    )
}

fn request(place: u8) -> DeviceRequest {
    DeviceRequest {
        place: place.into(),
        ..DeviceRequest::default()
    }
}

async fn find(agent: &AgentClient, place: u8) -> Result<PlugDeviceResponse, Error> {
    let request = request(place);
    let found = agent.plug_device(no_deadline(), &request);
    timeout(LIMIT, found).await.expect("the agent answers")
}

async fn let_go(agent: &AgentClient, place: u8) {
    let request = request(place);
    let done = agent.unplug_device(no_deadline(), &request);
    let done = timeout(LIMIT, done).await.expect("the agent answers");
    done.expect("it lets go");
}

fn refused(answer: Result<PlugDeviceResponse, Error>, words: &str) {
    match answer {
        Err(Error::RpcStatus(status)) => {
            assert_eq!(status.code(), Code::NOT_FOUND, "{status:?}");
            assert!(status.message().contains(words), "{status:?}");
        }
        other => panic!("{words}: {other:?}"),
    }
}

fn disk() -> Disk {
    let mut file: File = tempfile::tempfile().expect("a file");
    file.write_all(&[7; 1 << 16]).expect("writes");
    Disk {
        file: file.into(),
        read_only: true,
        serial: String::new(),
    }
}

async fn plug(vm: &dyn Vm, device: Device) -> u8 {
    let plug = vm.plug().expect("it can");
    let Place(place) = plug.plug(device).await.expect("is plugged in");
    place
}

#[test]
fn the_agent_takes_disks_and_images_and_lets_them_go() {
    case(async |fixture| {
        let mut config = fixture.config(&[]);
        config.initrd = image();
        config.memory_bytes = 256 << 20;
        config.spare_devices = SpareDevices {
            places: 1,
            disk_bytes: 0,
            share: false,
        };
        let (mut vm, link) = fixture.boot(config).await;
        let (link, driver) = Link::host(link);
        let driver = tokio::spawn(driver);
        let control = link.open_control().await.expect("the control stream");
        let agent = connect_agent(control);
        let hello = HelloRequest {
            version: PROTOCOL_VERSION,
            ..HelloRequest::default()
        };
        let answer = agent.hello(no_deadline(), &hello);
        let answer = timeout(LIMIT, answer).await.expect("the agent answers");
        answer.expect("it is ours");
        let before = guest::census(&*vm);
        let mut places = Vec::new();
        let in_memory = || Image { file: disk().file };
        for (device, name) in [
            (Device::Disk(disk()), "vda"),
            (Device::Image(in_memory()), "pmem0"),
            (Device::Disk(disk()), "vda"),
            (Device::Image(in_memory()), "pmem0"),
        ] {
            let place = plug(&*vm, device).await;
            let found = find(&agent, place).await.expect("a block device");
            assert_eq!(found.block_device, name);
            assert!(found.major > 0, "{found:?}");
            // Once more is as good.
            assert_eq!(find(&agent, place).await.expect("the same"), found);
            let_go(&agent, place).await;
            let_go(&agent, place).await;
            vm.plug()
                .expect("it can")
                .unplug(Place(place))
                .await
                .expect("is plugged out");
            refused(find(&agent, place).await, "there is no device in place");
            guest::expect_census(&*vm, before).await;
            places.push(place);
        }
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        refused(find(&agent, places[0] + 1).await, "has no place");
        vm.stop().await.expect("stops");
        // It ends with the link.
        let _ = timeout(LIMIT, driver).await.expect("the link's end");
    });
}
