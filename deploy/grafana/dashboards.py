"""The two dashboards as code: `python deploy/grafana/dashboards.py` writes them as JSON; a test runs their every query.

They ask for plain metrics only, not for recorded series, so that they work without the rules of `deploy/prometheus/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

JOB = 'job=~"$job"'
SERIES = f'{JOB}, entity=~"$entity", lang=~"$lang"'
ENTITY = f'{JOB}, entity=~"$entity"'
ALL_LANGUAGES = f'{JOB}, entity=~"$entity", lang="*"'
RATE = "$__rate_interval"

WIDTH = 24
"""Grafana's grid is 24 columns wide."""

Query = tuple[str, str]
"""A PromQL expression and the legend of its series."""


def query(expr: str, legend: str = "", *, ref: str = "A", instant: bool = False) -> prometheus.Dataquery:
    """One target of a panel."""
    made = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref).datasource(SOURCE)
    return made.instant().format(PromQueryFormat.TABLE) if instant else made.range()


def number(title: str, expr: str, unit: str, *, bad_from: float | None = None, about: str) -> stat.Panel:
    """One number with a small line behind it; red from `bad_from` on."""
    steps = [models.Threshold(value=None, color="green")]
    if bad_from is not None:
        steps.append(models.Threshold(value=bad_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .graph_mode(shapes.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(query(expr))
    )


def graph(
    title: str, *queries: Query, unit: str, about: str, stacked: bool = False, span: int = 8, top: float | None = None
) -> timeseries.Panel:
    """Lines over time; stacked areas where the sum is what counts."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(8)
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .show_points(shapes.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if top is not None:
        panel.max(top)
    for place, (expr, legend) in enumerate(queries):
        panel.with_target(query(expr, legend, ref=chr(ord("A") + place)))
    return panel


def quantiles(metric: str, by: str = "", where: str = "") -> Sequence[Query]:
    """The 50th, 95th and 99th percentile of a histogram; `by` keeps a label."""
    kept = f"le, {by}" if by else "le"
    matchers = f"{JOB}, {where}" if where else JOB
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({kept}) (rate({metric}_bucket{{{matchers}}}[{RATE}])))",
            f"{legend}p{q * 100:.0f}",
        )
        for q in (0.5, 0.95, 0.99)
    ]


def total(metric: str, by: str, where: str = JOB) -> Query:
    """Rate of a counter by one label."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[{RATE}]))", f"{{{{{by}}}}}"


def variable(name: str, label: str, values: str) -> dashboard.QueryVariable:
    """A choice whose values are those of a label; all at first, and all is more than those that are listed now."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def board(uid: str, title: str, about: str) -> dashboard.Dashboard:
    """An empty dashboard with what both have."""
    links = (("Babelwatch operations", "babelwatch-operations"), ("Babelwatch opinion", "babelwatch-opinion"))
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["babelwatch"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("job", "Job", "label_values(babelwatch_build_info, job)"))
    )
    for name, other in links:
        if other != uid:
            link = dashboard.DashboardLink(name).type(models.DashboardLinkType.LINK).url(f"/d/{other}")
            made.link(link.keep_time(True))
    return made


def operations() -> dashboard.Dashboard:
    """How the daemon does: rates, latencies, batches, queue, lag, errors, processor."""
    panels: list[Builder[models.Panel] | dashboard.Row] = [
        dashboard.Row("Now"),
        number("Documents", f"sum(rate(babelwatch_documents_total{{{JOB}}}[{RATE}]))", "cps",
               about="Documents a second, whatever became of them."),
        number("Lag", f"sum(babelwatch_lag_records{{{JOB}}})", "short", bad_from=10_000,
               about="Records not yet worked off, over all roles."),
        number("Age of a document (p95)", quantiles("babelwatch_document_age_seconds")[1][0], "s", bad_from=60,
               about="From Kafka to its opinion."),
        number("Model busy", f"sum(rate(babelwatch_model_seconds_sum{{{JOB}}}[{RATE}])) / sum(babelwatch_model_concurrency{{{JOB}}})",
               "percentunit", bad_from=0.95, about="Seconds of the model's runs per second, over the runs that fit side by side."),
        number("Cannot be used", f'sum(rate(babelwatch_dead_letters_total{{{JOB}, role="classify"}}[{RATE}])) / (sum(rate(babelwatch_documents_total{{{JOB}}}[{RATE}])) > 0)',
               "percentunit", bad_from=0.05, about="Part of the documents that ends on the dead-letter topic."),
        number("Longest refusal of a sink", f"max(babelwatch_sink_failing_seconds{{{JOB}}})", "s", bad_from=60,
               about="How long a sink has been refusing; 0 when all work."),
        dashboard.Row("Stream"),
        graph("Documents by what became of them", total("babelwatch_documents_total", "result"), unit="cps", stacked=True,
              about="Unmatched documents name no watched entity and cost no inference."),
        graph("Lag", (f"sum by (role) (babelwatch_lag_records{{{JOB}}})", "{{role}}"), unit="short",
              about="Records between the position of a role and the end of its topic."),
        graph("Age of a document", *quantiles("babelwatch_document_age_seconds"), unit="s", about="From Kafka to its opinion."),
        graph("Dead letters", (f"sum by (role, reason) (rate(babelwatch_dead_letters_total{{{JOB}}}[{RATE}]))", "{{role}}: {{reason}}"),
              unit="cps", about="Records that could not be used, by reason."),
        graph("In flight", (f"sum by (role) (babelwatch_backlog_records{{{JOB}}})", "{{role}}"),
              (f"sum(babelwatch_model_queue_documents{{{JOB}}})", "waiting for the model"), unit="short",
              about="Records taken and not yet committed, and documents that wait for the model."),
        graph("Reposts", (f"sum(rate(babelwatch_reposts_total{{{JOB}}}[{RATE}]))", "reposts"), unit="cps",
              about="Documents that repeat another's text: counted, not classified again."),
        dashboard.Row("Model"),
        graph("Duration of a run", *quantiles("babelwatch_model_seconds"), unit="s", about="One batch through the model."),
        graph("Documents in a batch", *quantiles("babelwatch_batch_documents"), unit="short",
              about="Large when the stream is fast, small when it is quiet: a batch waits for nobody."),
        graph("Tokens", total("babelwatch_model_tokens_total", "kind"), unit="cps", stacked=True,
              about="Real tokens and padding: padding is work for nothing."),
        graph("Model busy, by device",
              (f"sum by (job, instance) (rate(babelwatch_model_seconds_sum{{{JOB}}}[{RATE}])) / on (job, instance) group_right () babelwatch_model_concurrency{{{JOB}}}",
               "{{instance}} ({{device}})"), unit="percentunit", top=1, about="At 100 % the model is the limit."),
        graph("Texts without a result", total("babelwatch_model_errors_total", "kind"), unit="cps",
              about="Texts that the model could not judge, by kind."),
        graph("Opinions", (f"sum(rate(babelwatch_opinions_total{{{JOB}}}[{RATE}]))", "opinions"), unit="cps",
              about="One for each document and entity."),
        dashboard.Row("Detection"),
        graph("Behind in event time", (f"time() - max by (partition) (babelwatch_watermark_seconds{{{JOB}}})", "partition {{partition}}"),
              unit="s", about="How far closed buckets are behind the clock; in a replay of old documents, as far as these are old."),
        graph("Series", (f"sum(babelwatch_series{{{JOB}}})", "series"), unit="short", about="Entity x language series that are followed."),
        graph("Left out", (f"sum(rate(babelwatch_late_opinions_total{{{JOB}}}[{RATE}]))", "late"),
              (f"sum(rate(babelwatch_repeated_opinions_total{{{JOB}}}[{RATE}]))", "seen before"), unit="cps",
              about="Opinions that came after their bucket was closed, and repeats."),
        graph("Incidents in a day against the budget", (f"sum(increase(babelwatch_incidents_total{{{JOB}}}[1d]))", "began"),
              (f'sum(increase(babelwatch_actions_total{{{JOB}, kind="false_alarm"}}[1d]))', "marked as false"),
              (f"max(babelwatch_false_alarm_budget_per_day{{{JOB}}})", "false alarms accepted"), unit="short",
              about="More than the budget explains is a bad day, or a detector that does not fit."),
        graph("Restore", *quantiles("babelwatch_restore_seconds"), unit="s", about="Bringing back the state of one partition."),
        graph("Ready", (f"min by (role) (babelwatch_role_ready{{{JOB}}})", "{{role}}"), unit="bool_yes_no", top=1,
              about="Assigned and restored, in every process."),
        dashboard.Row("Delivery"),
        graph("Duration of a commit (p95)", quantiles("babelwatch_commit_seconds", by="role")[1], unit="s",
              about="Outputs, state and offsets together."),
        graph("Commits and pauses", (f"sum by (role) (rate(babelwatch_commits_total{{{JOB}}}[{RATE}]))", "{{role}} commits"),
              (f"sum by (role) (rate(babelwatch_pauses_total{{{JOB}}}[{RATE}]))", "{{role}} pauses"), unit="cps",
              about="A pause is back-pressure: a partition had too much in flight."),
        graph("Rebalances in an hour", (f"sum by (role) (increase(babelwatch_rebalances_total{{{JOB}}}[1h]))", "{{role}}"), unit="short",
              about="Assignments received; a restart is one for each member."),
        graph("Attempts to deliver", (f"sum by (sink, result) (rate(babelwatch_deliveries_total{{{JOB}}}[{RATE}]))", "{{sink}} {{result}}"),
              unit="cps", about="Skipped: not routed to this sink, or delivered before."),
        graph("Duration of an attempt (p95)", quantiles("babelwatch_delivery_seconds", by="sink")[1], unit="s", about="By sink."),
        graph("Refusing", (f"max by (sink) (babelwatch_sink_failing_seconds{{{JOB}}})", "{{sink}}"), unit="s",
              about="How long each sink has been refusing."),
        graph("Held back", (f"sum by (sink) (babelwatch_held_alerts{{{JOB}}})", "{{sink}} held now"),
              (f"sum by (sink, reason) (increase(babelwatch_withheld_alerts_total{{{JOB}}}[1h]))", "{{sink}} {{reason}} in the last hour"), unit="short",
              about="Quiet hours, digests, mutes and acknowledgements: told later, in a summary, or not at all."),
        graph("Requests turned away", total("babelwatch_http_refused_total", "status"), unit="cps",
              about="401: not signed in, 403: may not, 429: too many wrong tokens."),
        graph("Records written", total("babelwatch_outputs_total", "role"), unit="cps", about="Opinions, steps, alerts, state and dead letters."),
        dashboard.Row("Process"),
        graph("CPU", (f"rate(process_cpu_seconds_total{{{JOB}}}[{RATE}])", "{{instance}}"), unit="short", about="Cores in use."),
        graph("Memory", (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"), unit="bytes", about="Resident."),
        graph("Clock", (f"babelwatch_clock_seconds{{{JOB}}} - timestamp(babelwatch_clock_seconds{{{JOB}}})", "{{instance}}"), unit="s",
              about="Against the clock of Prometheus, at each scrape.").min(-1),
        graph("Open files", (f"process_open_fds{{{JOB}}}", "{{instance}}"), unit="short", about="Sockets among them."),
        graph("Up for", (f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}"), unit="s", about="Since the last start."),
        graph("Tasks", (f"babelwatch_tasks{{{JOB}}}", "{{instance}}"), unit="short", about="On the event loop; growth without an end is a leak."),
        graph("Watched", (f"max by (instance) (babelwatch_watchlist_entities{{{JOB}}})", "entities, {{instance}}"),
              (f"sum by (result) (increase(babelwatch_watchlist_reloads_total{{{JOB}}}[1h]))", "reloads {{result}} in the last hour"), unit="short",
              about="Entities on the watchlist in force, and how reading it again went."),
        graph("Versions", (f"count by (version, bundle) (babelwatch_build_info{{{JOB}}})", "{{version}} with bundle {{bundle}}"), unit="short",
              about="Processes by version and bundle; more than one line is a roll-out under way."),
    ]  # fmt: skip
    made = board("babelwatch-operations", "Babelwatch operations", "How the daemon does.")
    return fill(made, panels)


def opinion() -> dashboard.Dashboard:
    """What people say: negative share with its interval, volume, topics and incidents, by entity and language."""
    panels: list[Builder[models.Panel] | dashboard.Row] = [
        dashboard.Row("What is watched"),
        entities(),
        dashboard.Row("Negative share"),
        band(),
        graph("Negative share by language", (f'babelwatch_negative_share_ratio{{{SERIES}, lang!="*"}}', "{{entity}} {{lang}}"),
              unit="percentunit", span=12, top=1, about="The last hour of event time, corrected for the classifier's known confusion."),
        graph("Surely above what was expected",
              (f'babelwatch_negative_share_low_ratio{{{SERIES}, lang!="*"}} - on (job, entity, lang) babelwatch_expected_negative_share_ratio', "{{entity}} {{lang}}"),
              unit="percentunit", span=12, about="Low end of the 95 % interval less the baseline's expectation: above zero is a rise that chance does not explain.").min(-1),
        graph("Open incidents", (f"sum by (entity, severity) (babelwatch_open_incidents{{{ENTITY}}}) > 0 or sum by (entity) (babelwatch_open_incidents{{{ENTITY}}})",
              "{{entity}} {{severity}}"), unit="short", span=12, about="Firing now, by severity."),
        dashboard.Row("Volume"),
        graph("Opinions by sentiment", (f"sum by (sentiment) (rate(babelwatch_opinions_total{{{SERIES}}}[{RATE}]))", "{{sentiment}}"),
              unit="cps", stacked=True, about="As the classifier says, before correction.").override_by_name("negative", colour("red"))
        .override_by_name("neutral", colour("#808080")).override_by_name("positive", colour("green")),
        graph("Opinions by language", (f"sum by (lang) (rate(babelwatch_opinions_total{{{SERIES}}}[{RATE}]))", "{{lang}}"), unit="cps",
              stacked=True, about="`und`: too short or too mixed to tell."),
        graph("Opinions by entity", (f"sum by (entity) (rate(babelwatch_opinions_total{{{SERIES}}}[{RATE}]))", "{{entity}}"), unit="cps",
              stacked=True, about="Documents may name several."),
        graph("Topics", (f"sum by (topic) (rate(babelwatch_topics_total{{{ENTITY}}}[{RATE}]))", "{{topic}}"), unit="cps", stacked=True,
              about="The most probable news topic of each opinion."),
        graph("Opinions in the last hour of event time", (f"babelwatch_recent_documents{{{ALL_LANGUAGES}}}", "{{entity}}"), unit="short",
              about="What the shares above stand on."),
        graph("Alerts", (f"sum by (entity, state, severity) (increase(babelwatch_alerts_total{{{ENTITY}}}[$__range]))", "{{entity}} {{state}} {{severity}}"),
              unit="short", about="Raised within the time shown."),
    ]  # fmt: skip
    made = (
        board("babelwatch-opinion", "Babelwatch opinion", "What people say of the entities that are watched.")
        .with_variable(variable("entity", "Entity", f"label_values(babelwatch_entity_info{{{JOB}}}, entity)"))
        .with_variable(variable("lang", "Language", f"label_values(babelwatch_opinions_total{{{JOB}}}, lang)"))
        .annotation(
            dashboard.AnnotationQuery()
            .name("Incidents")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f"max by (entity, severity) (babelwatch_open_incidents{{{ENTITY}}}) > 0")
        )
    )
    return fill(made, panels)


def band() -> timeseries.Panel:
    """Each entity's share over all languages within its interval, and what the baseline expects."""
    panel = graph(
        "Negative share with its interval",
        (f"babelwatch_negative_share_ratio{{{ALL_LANGUAGES}}}", "{{entity}}"),
        (f"babelwatch_negative_share_low_ratio{{{ALL_LANGUAGES}}}", "{{entity}} low"),
        (f"babelwatch_negative_share_high_ratio{{{ALL_LANGUAGES}}}", "{{entity}} high"),
        (f"babelwatch_expected_negative_share_ratio{{{ALL_LANGUAGES}}}", "{{entity}} expected"),
        unit="percentunit", span=12, top=1,
        about="All languages together: the last hour of event time, its 95 % interval (thin), and what the baseline expects (dashed). Choose one entity to see it clearly.",
    )  # fmt: skip
    thin = [
        models.DynamicConfigValue("custom.lineWidth", 0.5),
        models.DynamicConfigValue("custom.fillOpacity", 0),
        models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "#8888"}),
    ]
    dashed = [
        models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        models.DynamicConfigValue("custom.fillOpacity", 0),
    ]
    return panel.override_by_query("B", thin).override_by_query("C", thin).override_by_query("D", dashed)


def entities() -> table.Panel:
    """A row for each entity; a click shows this dashboard for it alone."""
    columns = (
        (f"max by (entity, name, owner) (babelwatch_entity_info{{{ENTITY}}})", "info"),
        (f"sum by (entity) (babelwatch_recent_documents{{{ALL_LANGUAGES}}})", "documents, last hour"),
        (f"max by (entity) (babelwatch_negative_share_ratio{{{ALL_LANGUAGES}}})", "negative share"),
        (f"max by (entity) (babelwatch_negative_share_low_ratio{{{ALL_LANGUAGES}}})", "low"),
        (f"max by (entity) (babelwatch_negative_share_high_ratio{{{ALL_LANGUAGES}}})", "high"),
        (f"max by (entity) (babelwatch_expected_negative_share_ratio{{{ALL_LANGUAGES}}})", "expected"),
        (f"sum by (entity) (babelwatch_open_incidents{{{ENTITY}}})", "open incidents"),
    )
    panel = table.Panel().title("Entities").datasource(SOURCE).span(WIDTH).height(8)
    panel.description("The last hour of event time, over all languages. Click an entity to see it alone.")
    renamed = {}
    for place, (expr, name) in enumerate(columns):
        ref = chr(ord("A") + place)
        panel.with_target(query(expr, ref=ref, instant=True))
        renamed[f"Value #{ref}"] = name
        if name in ("negative share", "low", "high", "expected"):
            panel.override_by_name(name, [models.DynamicConfigValue("unit", "percentunit")])
    drill = {
        "title": "Only ${__value.text}",
        "url": "/d/babelwatch-opinion?var-entity=${__value.text}&${__url_time_range}",
    }
    panel.override_by_name("entity", [models.DynamicConfigValue("links", [drill])])
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organised = {"excludeByName": {"Time": True, "Value #A": True}, "renameByName": renamed, "indexByName": {}}
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organised))


def colour(name: str) -> list[models.DynamicConfigValue]:
    """A fixed colour for a series."""
    return [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": name})]


def fill(made: dashboard.Dashboard, panels: Sequence[Any]) -> dashboard.Dashboard:
    """Add rows and panels in their order; the grid flows by itself."""
    for panel in panels:
        if isinstance(panel, dashboard.Row):
            made.with_row(panel)
        else:
            made.with_panel(panel)
    return made


def as_json(made: dashboard.Dashboard) -> str:
    """The dashboard as Grafana's provisioning reads it."""
    content = json.loads(JSONEncoder().encode(made.build()))
    for place, panel in enumerate(content["panels"], 1):
        panel["id"] = place
    for annotation in content.get("annotations", {}).get("list", []):
        # What the Prometheus data source writes beside the line; the model of the library does not know these fields.
        annotation |= {
            "titleFormat": "{{entity}}",
            "textFormat": "{{severity}}",
            "tagKeys": "entity,severity",
            "step": "60s",
        }
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def dashboards() -> dict[str, str]:
    """File name to content of both."""
    return {"operations.json": as_json(operations()), "opinion.json": as_json(opinion())}


if __name__ == "__main__":
    for name, content in dashboards().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
