//! `-p [ADDRESS:]HOST:GUEST[/udp]`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Of the host's addresses; all of them when there is none.
    pub address: Option<Ipv4Addr>,
    /// On the host.
    pub host: u16,
    /// In the container.
    pub guest: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The default.
    Tcp,
    /// With `/udp`.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Port {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => bail!("port {text:?}: there are /tcp and /udp"),
        };
        let parts: Vec<_> = ports.split(':').collect();
        let (address, host, guest) = match parts[..] {
            [host, guest] => (None, host, guest),
            [address, host, guest] => (Some(address), host, guest),
            _ => bail!("port {text:?} is not [ADDRESS:]HOST:GUEST[/udp]"),
        };
        let number = |part: &str| match part.parse::<u16>() {
            Ok(number) if number > 0 => Ok(number),
            _ => bail!("port {text:?}: {part:?} is not a number between 1 and 65535"),
        };
        let address = match address.map(str::parse::<Ipv4Addr>) {
            None => None,
            Some(Ok(address)) if address.is_unspecified() => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => bail!("port {text:?}: its address is not an IPv4 address"),
        };
        Ok(Self {
            address,
            host: number(host)?,
            guest: number(guest)?,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_or_refused() {
        let port: Port = "8080:80".parse().unwrap();
        assert_eq!(
            (port.host, port.guest, port.protocol),
            (8080, 80, Protocol::Tcp)
        );
        let port: Port = "127.0.0.1:53:5353/udp".parse().unwrap();
        assert_eq!(port.address, Some(Ipv4Addr::LOCALHOST));
        assert_eq!(
            (port.host, port.guest, port.protocol),
            (53, 5353, Protocol::Udp)
        );
        assert_eq!("0.0.0.0:1:2".parse::<Port>().unwrap().address, None);
        for bad in [
            "", "80", "0:80", "80:0", "65536:1", "a:b", "1:2/sctp", "x:1:2", "1:2:3:4", "::1:1:2",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
    }
}
