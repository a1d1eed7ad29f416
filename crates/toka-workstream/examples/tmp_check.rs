//! tmp
fn main() {
    let paths: Vec<std::path::PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let start = std::time::Instant::now();
    let loaded = toka_workstream::check(&paths, &Default::default());
    let middle = start.elapsed();
    let text = loaded.sources.render(&loaded.diagnostics, toka_workstream::Style::Plain);
    eprintln!(
        "{} agents {} diagnostics {} bytes, {:?} + {:?}",
        loaded.agents,
        loaded.diagnostics.len(),
        text.len(),
        middle,
        start.elapsed() - middle
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
