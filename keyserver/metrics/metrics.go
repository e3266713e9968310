// Package metrics counts what a key server does, for Prometheus. Nothing in it names an image, a session, a source or a
// platform: every label has few values, all of them known before, and what is not known counts as "other". So whoever
// reads the metrics learns how much is going on and nothing of what it is, and no request can make them grow.
//
// Metrics has a registry of its own: two servers in one process count apart. The handler should be served
// where only the owner's monitoring can ask. packaging/grafana-dashboard.json shows what is counted here.
package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
)

// namespace begins every name but those of the process and the Go runtime.
const namespace = "sealboot_keyserver"

// Config says what is read when the metrics are asked for. A nil field leaves its metric out, and so does an error.
type Config struct {
	Now          func() time.Time                    // for the time that is left; nil: nothing is said of certificates
	OpenSessions func() (int64, error)               // in the store
	Chains       func() (hits, misses uint64)        // platforms' certificate chains, remembered or verified
	Queue        func() (waiting, bound int)         // writes that wait for the store
	Certificates map[string]func() (time.Time, bool) // by use: when the certificate in use ends; false: there is none
	Log          *slog.Logger                        // what could not be read; nil: nowhere
}

// Metrics counts. Its methods are safe for concurrent use, and never block.
type Metrics struct {
	registry *prometheus.Registry
	log      *slog.Logger

	decisions    *prometheus.CounterVec
	rows         prometheus.Counter
	checkpointed prometheus.Gauge
	expired      prometheus.Counter
	requests     *prometheus.CounterVec
	took         *prometheus.HistogramVec
	underWay     prometheus.Gauge
	commit       prometheus.Histogram
	batch        prometheus.Histogram
	failed       prometheus.Counter
	kds          *prometheus.CounterVec
	kdsBackoff   prometheus.Gauge
}

// granted stands for the empty class.
const granted = "granted"

// Buckets of durations in seconds: a release takes a millisecond or two, a full disk's timeout five seconds.
var seconds = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// New makes metrics that count from zero.
func New(c Config) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), log: c.Log}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m.decisions = counter("decisions_total", "Decisions in the audit, by event (session, release, ...), the guest's kind, and class (granted, or that of the refusal).", "event", "kind", "class")
	m.rows = counter("audit_rows_total", "Rows that this server wrote to the audit.").WithLabelValues()
	m.checkpointed = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "audit_checkpoint_timestamp_seconds", Help: "When this server last signed the audit; 0: not since it started."})
	m.expired = counter("sessions_expired_total", "Open sessions that this server ended without a measurement.").WithLabelValues()
	m.requests = counter("requests_total", "Answered requests, by route and status.", "route", "code")
	m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "request_duration_seconds", Help: "Time from a request's header to the end of its answer.", Buckets: seconds}, []string{"route"})
	m.underWay = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "requests_in_flight", Help: "Requests under way."})
	m.commit = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "store_commit_duration_seconds", Help: "Time that a batch of writes takes until it is on the disk.", Buckets: seconds})
	m.batch = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "store_batch_writes", Help: "Writes that shared one commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)})
	m.failed = counter("store_failed_writes_total", "Writes that failed, each on its own or with its batch.").WithLabelValues()
	m.kds = counter("kds_requests_total", "Questions to AMD's key distribution service, by outcome.", "outcome")
	m.kdsBackoff = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "kds_backoff_seconds", Help: "How long AMD's key distribution service was last left alone after a failure; 0: it answered."})
	m.registry.MustRegister(m.decisions, m.rows, m.checkpointed, m.expired, m.requests, m.took, m.underWay, m.commit, m.batch, m.failed, m.kds, m.kdsBackoff,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	m.zero()
	m.read(c)
	return m
}

// zero gives the series that alarms are set on a value before the first event: what is not there raises none.
func (m *Metrics) zero() {
	for _, kind := range kinds() {
		m.decisions.WithLabelValues("session", kind, granted)
		m.decisions.WithLabelValues("release", kind, granted)
		m.decisions.WithLabelValues("release", kind, string(wire.Refused))
	}
	for _, outcome := range outcomes {
		m.kds.WithLabelValues(outcome)
	}
}

// read registers what is asked for at the time of a scrape.
func (m *Metrics) read(c Config) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels}, value))
	}
	if c.OpenSessions != nil {
		m.registry.MustRegister(&reading{desc: prometheus.NewDesc(namespace+"_sessions_open", "Open sessions in the store, of all its servers.", nil, nil),
			read: func() (float64, error) { n, err := c.OpenSessions(); return float64(n), err }, log: m.log})
	}
	if c.Chains != nil {
		for result, value := range map[string]func() float64{
			"hit":  func() float64 { hits, _ := c.Chains(); return float64(hits) },
			"miss": func() float64 { _, misses := c.Chains(); return float64(misses) },
		} {
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: "chain_cache_total",
				Help: "Platforms' certificate chains: remembered (hit) or verified (miss).", ConstLabels: prometheus.Labels{"result": result}}, value))
		}
	}
	if c.Queue != nil {
		gauge("store_queue_writes", "Writes that wait for the store.", nil, func() float64 { n, _ := c.Queue(); return float64(n) })
		gauge("store_queue_bound_writes", "Writes that may wait; one more is told that the server is busy.", nil, func() float64 { _, n := c.Queue(); return float64(n) })
	}
	for use, end := range c.Certificates {
		m.registry.MustRegister(&reading{desc: prometheus.NewDesc(namespace+"_certificate_end_timestamp_seconds", "When the certificate in use ends.", nil, prometheus.Labels{"use": use}),
			read: func() (float64, error) {
				at, ok := end()
				if !ok {
					return 0, fmt.Errorf("no certificate of %s", use)
				}
				return float64(at.Unix()), nil
			}, log: m.log})
	}
}

// reading is a gauge that is left out when it cannot be read: a zero would be a lie.
type reading struct {
	desc *prometheus.Desc
	read func() (float64, error)
	log  *slog.Logger
}

func (r *reading) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

func (r *reading) Collect(ch chan<- prometheus.Metric) {
	value, err := r.read()
	if err != nil {
		r.log.Warn("cannot read a metric", "metric", r.desc.String(), "error", err)
		return
	}
	ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, value)
}

// buildInfo tells which program this is.
func buildInfo() prometheus.Collector {
	version, revision, goVersion := "unknown", "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, goVersion = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "1; the labels tell which program this is.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion}})
	g.Set(1)
	return g
}

// kinds are the guests' that are told apart.
func kinds() []string {
	return []string{string(measure.SEV), string(measure.SEVES), string(measure.SNP)}
}

// known gives the value if it is one of the list, else "other".
func known(value string, list []string) string {
	if slices.Contains(list, value) {
		return value
	}
	return "other"
}

// Decided counts an audit entry that is on the disk: its event, one of the server's own words; the guest's kind, empty if it is
// not known; the class of the refusal, empty if there was none; and its count.
func (m *Metrics) Decided(event, kind, class string, count int64) {
	if class == "" {
		class = granted
	} else {
		class = known(class, classes())
	}
	if kind == "" {
		kind = "none"
	} else {
		kind = known(kind, kinds())
	}
	m.rows.Inc()
	m.decisions.WithLabelValues(event, kind, class).Inc()
	if event == "expire" && count > 0 {
		m.expired.Add(float64(count))
	}
}

func classes() []string {
	var list []string
	for _, c := range wire.Classes() {
		list = append(list, string(c))
	}
	return list
}

// Signed notes the time of a checkpoint.
func (m *Metrics) Signed(at time.Time) { m.checkpointed.Set(float64(at.Unix())) }

// Batch is called when a batch of writes begins; what it gives is called at its end.
func (m *Metrics) Batch() (ended func(written, failed int)) {
	timer := prometheus.NewTimer(m.commit)
	return func(written, failed int) {
		timer.ObserveDuration()
		m.batch.Observe(float64(written + failed))
		m.failed.Add(float64(failed))
	}
}

// outcomes are those of questions to AMD's key distribution service (snp.Outcome).
var outcomes = []string{"answered", "rate-limited", "failed", "withheld"}

// KDS counts a question to AMD's key distribution service, and notes how long the service is left alone from now on.
func (m *Metrics) KDS(outcome string, alone time.Duration) {
	m.kds.WithLabelValues(known(outcome, outcomes)).Inc()
	m.kdsBackoff.Set(alone.Seconds())
}

// Count counts the requests that next answers, by its ServeMux's pattern: next must set the request's Pattern, as a ServeMux does.
func (m *Metrics) Count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.underWay.Inc()
		defer m.underWay.Dec()
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		timer := prometheus.NewTimer(prometheus.ObserverFunc(func(seconds float64) {
			route := routeOf(r.Pattern)
			m.took.WithLabelValues(route).Observe(seconds)
			m.requests.WithLabelValues(route, strconv.Itoa(status.status)).Inc()
		}))
		defer timer.ObserveDuration() // after a panic too
		next.ServeHTTP(status, r)
	})
}

// routeOf gives a pattern without its method: patterns are the server's own, so there are few.
func routeOf(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	if pattern == "" || pattern == "/" {
		return "other"
	}
	return pattern
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.wrote && status >= 200 {
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Handler serves the metrics in Prometheus' text form, to GET and HEAD alone.
func (m *Metrics) Handler() http.Handler {
	inner := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second, ErrorHandling: promhttp.HTTPErrorOnError,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "metrics are read with GET", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		inner.ServeHTTP(w, r)
	})
}
