//! `streamproof report`: one HTML file of runs and failures, to be opened anywhere.

use std::path::{Path, PathBuf};

use reports::page::{self, Picture, Scenery};
use reports::{Case, SweepBuilder};

use super::args::{JobArgs, ReportArgs, WhichArgs};
use super::explain::{capsule_at, told};
use super::merge::{self, Merged};
use super::run::options;
use super::{Refusal, out, which};
use crate::capsule::Capsule;
use crate::exit::Exit;
use crate::explain;
use crate::interrupt::Interrupt;
use crate::store::{self, RunHeader, Stored};
use crate::task::quote;

/// Failures of a run that are drawn: one of each kind says more than many alike, and each is a few megabytes.
const MAX_PICTURES: usize = 8;

/// The first failure for another viewer: its file if one was named, the viewer, and how it is written.
type Export<'a> = (&'a Option<PathBuf>, &'a str, fn(&Picture) -> String);

pub fn run(args: ReportArgs) -> Result<Exit, Refusal> {
    let (runs, rest): (Vec<_>, Vec<_>) = args.what.iter().partition(|what| store::run_dir(what).is_some());
    let runs: Vec<PathBuf> = runs.into_iter().filter_map(|what| store::run_dir(what)).collect();
    if runs.len() > 1 && !args.merge {
        return Err(Refusal::usage("several runs make one report with --merge"));
    }
    if args.merge {
        merge::fit(&runs).map_err(Refusal::usage)?;
    }
    let mut builder = SweepBuilder::default();
    let (mut merged, mut pictures) = (Merged::default(), Vec::new());
    // One shard that left nothing must not cost the report on the others.
    let (lost, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|what| args.merge && Path::new(what).is_dir());
    if args.merge && (runs.is_empty() || !rest.is_empty()) {
        let other = rest.first().map_or_else(|| "nothing".to_owned(), |what| format!("`{what}`"));
        return Err(Refusal::usage(format!("--merge puts runs together, and {other} is no run")));
    }
    lost.into_iter().for_each(|dir| merged.lost(format!("{dir}: there is no run in it")));
    for dir in &runs {
        if let Err(why) = merged.add(dir, &mut builder) {
            if !args.merge {
                return Err(Refusal::usage(why));
            }
            merged.lost(why);
        }
        for path in store::capsules(dir) {
            if pictures.len() >= MAX_PICTURES {
                break;
            }
            match Capsule::read(&path) {
                Ok(capsule) => pictures.push(picture(&capsule, &path)),
                Err(why) if args.merge => eprintln!("warning: {why}"),
                Err(why) => return Err(Refusal::usage(why)),
            }
        }
    }
    if let ([dir], [header]) = (&runs[..], &merged.headers[..]) {
        compare(dir, header, &mut builder);
    }
    let mut beside = None;
    for what in rest {
        let which = WhichArgs { what: what.clone(), job: JobArgs::default(), faults: args.faults.clone() };
        let interrupt = Interrupt::default();
        for named in which::select(&which)? {
            let (capsule, path) = capsule_at(&named, &options(Some(1))?, &interrupt)?;
            pictures.push(picture(&capsule, &path));
            beside.get_or_insert(path);
        }
    }
    let output = args.output.clone().unwrap_or_else(|| match (&runs[..], beside) {
        ([dir], _) => dir.join("report.html"),
        ([], Some(capsule)) => capsule.with_extension("html"),
        _ => PathBuf::from(".streamproof/report.html"),
    });
    let title = match (&merged.headers[..], &pictures[..]) {
        ([header], _) => format!("streamproof run {}", header.id),
        ([], [one]) => format!("streamproof {}", one.name),
        ([], many) => format!("streamproof, {} runs", many.len()),
        (many, _) => format!("streamproof, {} runs together", many.len()),
    };
    let names = merged.headers.iter().map(|h| (h.id.clone(), format!("streamproof {}", h.command.join(" ")))).collect();
    let sweep = (!runs.is_empty()).then(|| builder.sweep(names, merged.wall_ms));
    let html = page::render(&title, sweep.as_ref(), &pictures);
    // Before anything is written: whatever comes of the files, the outcome is told.
    let exit = if args.merge { merged.tell(&args) } else { Exit::Pass };
    out::file(&output, &html).map_err(|e| Refusal::failed(format!("{}: {e}", output.display())))?;
    // With --merge the outcome is what stdout is for.
    let say = |path: &Path| match args.merge {
        true => eprintln!("{}", path.display()),
        false => out::line(&path.display().to_string()),
    };
    say(&output);
    let exports: [Export<'_>; 2] =
        [(&args.perfetto, "Perfetto", page::perfetto), (&args.shiviz, "ShiViz", page::shiviz)];
    for (path, viewer, of) in exports {
        let Some(path) = path else { continue };
        let Some(first) = pictures.first() else {
            if args.merge {
                eprintln!("warning: there is no failure to write for {viewer}");
                continue;
            }
            return Err(Refusal::nothing(format!("there is no failure to write for {viewer}")));
        };
        out::file(path, &of(first)).map_err(|e| Refusal::failed(format!("{}: {e}", path.display())))?;
        say(path);
    }
    if args.open {
        let opened = std::process::Command::new("xdg-open").arg(&output).status();
        if !opened.is_ok_and(|status| status.success()) {
            eprintln!("warning: failed to open it: is xdg-open there?");
        }
    }
    Ok(exit)
}

/// With the newest earlier run of the same command, if it is kept.
fn compare(dir: &Path, header: &RunHeader, builder: &mut SweepBuilder) {
    let Some(root) = dir.parent() else { return };
    // A folder of the user's has a name that says nothing of its time.
    if dir.file_name().is_none_or(|name| name != header.id.as_str()) {
        return;
    }
    let ids = store::ids(root).unwrap_or_default();
    let earlier = ids.into_iter().rev().filter(|id| *id < header.id);
    for id in earlier {
        let mut reports = Vec::new();
        let failing = &mut |stored: Stored| {
            if stored.report.verdict.is_failure() {
                reports.push(stored.report);
            }
        };
        if store::read_run(&root.join(&id), failing).is_ok_and(|before| before.command == header.command) {
            builder.compare(&reports);
            return;
        }
    }
}

/// A capsule as the page draws it, with what `explain` found out about it, if it was asked.
fn picture(capsule: &Capsule, path: &Path) -> Picture {
    let mut told = told(capsule, None);
    if let Some(told) = &mut told {
        explain::Found::read(path, told);
    }
    let file = quote(&path.display().to_string());
    let build = &capsule.build;
    let facts = [
        ("replay", format!("streamproof replay {file}")),
        ("explain", format!("streamproof explain {file}")),
        ("shrink", format!("streamproof shrink {file}")),
        ("build", format!("{}, {}, {}", build.commit_text(), build.toolchain, build.target)),
        ("world hash", capsule.report.world_hash.clone()),
        ("probe hash", capsule.report.probe_hash.clone()),
    ];
    let t = &capsule.result.timings;
    Picture::of(Scenery {
        case: Case {
            plan: &capsule.plan,
            history: &capsule.history,
            outcome: &capsule.result.outcome,
            report: &capsule.report,
            notes: &capsule.result.notes,
        },
        scene: &capsule.result.scene,
        phase_ends_ms: [t.healed_ms, t.converged_ms, t.drained_ms],
        verdicts: &capsule.result.verdicts,
        facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        told,
    })
}
