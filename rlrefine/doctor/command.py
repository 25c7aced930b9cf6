"""What ``rlrefine doctor`` prints."""

import json
from dataclasses import asdict

import click

from rlrefine.doctor.checks import findings
from rlrefine.doctor.environment import Environment, gather

MARKS = {"broken": "✗", "warning": "!", "note": "·"}


def examine(*, as_json: bool) -> bool:
    """Print what this machine is and what is wrong with it; gives whether nothing is broken."""
    env = gather()
    found = findings(env)
    healthy = all(finding.severity != "broken" for finding in found)
    if as_json:
        listed = [asdict(finding) for finding in found]
        click.echo(json.dumps({"healthy": healthy, "environment": asdict(env), "findings": listed}, indent=1))
        return healthy
    click.echo(_described(env))
    for finding in found:
        click.echo(f"{MARKS[finding.severity]} {finding.what}" + (f"\n    {finding.fix}" if finding.fix else ""))
    counts = [sum(finding.severity == severity for finding in found) for severity in ("broken", "warning")]
    click.echo(f"{counts[0]} broken, {counts[1]} warnings" if sum(counts) else "nothing is wrong")
    return healthy


def _described(env: Environment) -> str:
    build = f"built for {env.cuda}" if env.cuda else "CPU build"
    threads = f", OMP_NUM_THREADS={env.threads}" if env.threads else ""
    lines = [f"Python {env.python}, {env.system}, {env.cores} cores{threads}"]
    if "torch" in env.packages:
        lines.append(f"torch {env.packages['torch']}, {build}, {', '.join(env.gpus) or 'no GPU'}")
    others = [f"{name} {version}" for name, version in env.packages.items() if name != "torch"]
    return "\n".join([*lines, ", ".join(others)])
