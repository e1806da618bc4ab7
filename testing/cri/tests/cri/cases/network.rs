//! Networks of pods, as a CNI bridge makes them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cri::v1::{PortMapping, Protocol};
use harness::wait_until;

use crate::lab::Lab;
use crate::pod::{command, script};

/// A server of one file.
const SERVER: &str = "mkdir /www; echo served > /www/file; httpd -f -p 8080 -h /www";
const FETCH: &str = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://ADDRESS:8080/file && exit; sleep 1; done; exit 1";

pub fn shared_by_containers(lab: &Lab) {
    let pod = lab.pod();
    let _server = pod.run(script("server", SERVER));
    let fetch = script("client", &FETCH.replace("ADDRESS", "127.0.0.1"));
    assert_eq!(pod.finish(fetch), (0, "served\n".to_owned()));
    let (code, shown) = pod.finish(script("addresses", "ip -4 -o addr show eth0"));
    assert_eq!(code, 0);
    assert!(shown.contains(&pod.ip()), "{shown}");
}

pub fn reached_from_outside(lab: &Lab) {
    let pod = lab.pod();
    let _server = pod.run(script("server", SERVER));
    assert_eq!(fetch(&format!("{}:8080", pod.ip())), "served\n");
}

pub fn between_pods(lab: &Lab) {
    let one = lab.run(lab.pod_config("one"));
    let two = lab.run(lab.pod_config("two"));
    let _server = one.run(script("server", SERVER));
    let client = script("client", &FETCH.replace("ADDRESS", &one.ip()));
    assert_eq!(two.finish(client), (0, "served\n".to_owned()));
}

pub fn both_families(lab: &Lab) {
    let pod = lab.pod();
    let network = pod.status().expect("a status").network.expect("a network");
    let six = &network.additional_ips.first().expect("a second address").ip;
    assert!(six.starts_with("fd13:3:"), "{six}");
    let gateway = format!("{}1", six.split_inclusive("::").next().expect("a network"));
    let ping = format!(
        "ip -6 -o addr show eth0 | grep -c '{six}/'; ping -6 -c 1 -W 20 {gateway} | grep -c 'from'; ip -6 route show default | grep -c {gateway}"
    );
    assert_eq!(
        pod.finish(script("main", &ping)),
        (0, "1\n1\n1\n".to_owned())
    );
}

pub fn port_of_the_host(lab: &Lab) {
    let port = if lab.is_machine() { 18_081 } else { 18_080 };
    let port = port + 10 * i32::from(lab.engine.number);
    let mut config = lab.pod_config("pod");
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 8080,
        host_port: port,
        host_ip: String::new(),
    }];
    let pod = lab.run(config);
    let _server = pod.run(script("server", SERVER));
    // Not loopback: packets to it do not leave it.
    let own = format!("10.133.{}.1:{port}", lab.engine.number);
    assert_eq!(fetch(&own), "served\n");
}

pub fn loopback(lab: &Lab) {
    let pod = lab.pod();
    let ping = "ping -c 1 -W 20 127.0.0.1 | grep -c from";
    assert_eq!(pod.finish(script("main", ping)), (0, "1\n".to_owned()));
    let devices = command("devices", &["ls", "/sys/class/net"]);
    let (_, devices) = pod.finish(devices);
    let names: Vec<_> = devices.split_whitespace().collect();
    assert!(
        names.contains(&"lo") && names.contains(&"eth0"),
        "{names:?}"
    );
}

/// Waits until a server answers.
fn fetch(address: &str) -> String {
    let mut last = String::new();
    let answers = wait_until(Duration::from_secs(90), || match ask(address) {
        Ok(answer) => {
            last = answer;
            last.contains("200 OK")
        }
        Err(error) => {
            last = error.to_string();
            false
        }
    });
    assert!(answers, "{address}: {last}");
    last.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default()
}

fn ask(address: &str) -> std::io::Result<String> {
    let target = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
