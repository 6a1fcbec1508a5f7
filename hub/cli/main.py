"""`guanmo`: the commands of an installation. Each prints one line for a refusal and exits 1, 2 for wrong usage.

It leaves the work to the modules beside it and to the hub's services.
"""

import os
import sys

import typer
from sqlalchemy.exc import DBAPIError

from hub.cli import (
    audit,
    calling,
    claims,
    corrections,
    demo,
    finetune,
    gateway,
    grants,
    home,
    ledger,
    machines,
    market,
    meters,
    offers,
    operators,
    orders,
    payouts,
    programmes,
    quotes,
    redemptions,
    related,
    rentals,
    reports,
    rollouts,
    running,
    statements,
    top,
    vouchers,
    wallet,
)
from hub.errors import GuanmoError
from hub.outages import explain_outage
from hub.settings import read_settings

app = typer.Typer(
    help="Guanmo 莞模: choose, adapt and use industrial models, out of the box.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("init")(home.init)
app.command("migrate")(home.migrate)
app.command("reset")(home.reset)
app.command("up")(running.up)
app.command("down")(running.down)
app.command("status")(running.status)
app.command("logs")(running.logs)
app.command("seed")(market.seed)
app.command("demo")(demo.run_demo)
app.add_typer(ledger.ledger, name="ledger", help="The books: accounts, entries, invariants.")
app.command("top")(top.show)
app.command("gateway")(gateway.run)
app.command("gateway-key")(gateway.make_key)
app.command("verify")(audit.verify)
app.add_typer(audit.audit, name="audit", help="The audit trail: sign, check, export.")
app.add_typer(finetune.finetune, name="finetune", help="Fine-tuning jobs: list, watch, cancel, pause, resume.")
app.add_typer(rollouts.rollout, name="rollout", help="A new version takes over a name bit by bit: start, promote…")
app.add_typer(operators.operators, name="operators", help="The operator's own people.")
app.add_typer(programmes.programmes, name="programmes", help="Voucher programmes: rules in force, draft, approve.")
app.command("sign-in")(calling.sign_in)
app.add_typer(wallet.wallet, name="wallet", help="A firm's own money: balance, deposits, earnings.")
app.add_typer(quotes.quotes, name="quotes", help="Quotes: list, show with lines, accept.")
app.add_typer(orders.orders, name="orders", help="Orders: list, show with lines.")
app.add_typer(vouchers.vouchers, name="vouchers", help="Voucher applications: apply, check, approve, appeal…")
app.add_typer(grants.grants, name="grants", help="Awarded vouchers: balances, papers, revoke.")
app.add_typer(claims.claims, name="claims", help="Claims on the authority: draft, submit, paid, reconcile…")
app.add_typer(reports.reports, name="reports", help="Authority reports: preview, issue, download, changes.")
app.add_typer(statements.statements, name="statements", help="Statements of a month: show, download, records…")
app.add_typer(payouts.payouts, name="payouts", help="Payouts of what was earned: request, send, settle…")
app.add_typer(rentals.rentals, name="rentals", help="Rented compute: rent, extend, end, device time…")
app.add_typer(meters.meters, name="meters", help="Doubted device time and lost gateways: list, decide…")
app.add_typer(related.related, name="related", help="Related parties: owners, signs, decisions.")
app.add_typer(corrections.corrections, name="corrections", help="Corrections of settled bills: propose, approve…")
app.add_typer(redemptions.redemptions, name="redemptions", help="Pay first, redeem after: request, check, approve…")
app.add_typer(offers.offers, name="offers", help="Compute offers: compare, publish, pause…")
app.add_typer(machines.machines, name="machines", help="Machines of the pool: list, maintenance, back in service.")
app.add_typer(market.models, name="models", help="Base models of the catalogue.")


def main() -> None:
    """Run the command line; the only top handler of this process."""
    try:
        app()
    except GuanmoError as error:
        raise _end_with(error) from None
    except DBAPIError as error:
        outage = explain_outage(error)
        if outage is None:
            raise
        raise _end_with(outage) from None


def _end_with(error: GuanmoError) -> SystemExit:
    language = "zh" if os.environ.get("LANG", "").startswith("zh") else "en"
    sys.stderr.write(f"guanmo: {error.text(language)} [{error.code}]\n")
    return SystemExit(1)


__all__ = ["app", "main", "read_settings"]
