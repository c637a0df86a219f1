//! A pseudoterminal for a command to draw on.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::operator::Running;

pub struct Terminal {
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command with its three standard streams on a terminal of 100 columns.
    pub fn start(mut command: Command) -> (Self, Running) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave: OwnedFd = File::options().read(true).write(true).open(name).unwrap().into();
        let again = || slave.try_clone().unwrap();
        command.env("TERM", "xterm-256color").stdin(again()).stdout(again()).stderr(again());
        drop(slave);
        // The command is dropped in there, and with it this side's copies of the terminal.
        let running = Running::start_on_terminal(command);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&shown);
        // Ends with the last process that has the terminal: reading is an error then.
        std::thread::spawn(move || {
            let mut master = File::from(master);
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = master.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        (Self { shown }, running)
    }

    /// All that was ever written to it, escape sequences included.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }
}
