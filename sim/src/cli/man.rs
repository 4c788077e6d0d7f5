//! `streamproof man`: manual pages, made from the grammar of the command line.

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::{Cli, ManArgs};
use super::{Refusal, out, suggest};
use crate::exit::Exit;

pub fn run(args: &ManArgs) -> Result<Exit, Refusal> {
    let mut command = Cli::command();
    // Gives each verb its whole name.
    command.build();
    if let Some(dir) = &args.dir {
        let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
        return match written {
            Ok(()) => Ok(Exit::Pass),
            Err(e) => Err(Refusal::failed(format!("{}: {e}", dir.display()))),
        };
    }
    let page = match &args.verb {
        None => &command,
        Some(verb) => command.find_subcommand(verb).filter(|found| !found.is_hide_set()).ok_or_else(|| {
            let names: Vec<&str> =
                command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
            Refusal::usage(format!(
                "no verb `{verb}`{}; there are {}",
                suggest::sentence(verb, &names),
                names.join(", ")
            ))
        })?,
    };
    let mut roff = Vec::new();
    Man::new(page.clone()).render(&mut roff).map_err(|e| Refusal::failed(e.to_string()))?;
    out::data(&String::from_utf8_lossy(&roff));
    Ok(Exit::Pass)
}
