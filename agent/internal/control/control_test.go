package control

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// serve starts a server with both of its faces and returns their addresses.
func serve(t *testing.T, list []Container) (control, open string) {
	t.Helper()
	notifytest.NoLeak(t)
	m := metrics.New(func() float64 { return 3 }, func() float64 { return 2 })
	call := m.For("mknod", "mknodat")
	call.Observe(metrics.Answered, time.Millisecond)
	call.Observe(metrics.Denied, time.Second)
	s := New(Options{Gatherer: m.Gatherer(), Containers: func() []Container { return list }})
	var addresses []string
	ended := make(chan error, 2)
	for _, how := range []func(net.Listener) error{s.Control, s.Metrics} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addresses = append(addresses, "http://"+l.Addr().String())
		go func() { ended <- how(l) }()
	}
	t.Cleanup(func() {
		s.Close()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error("serve:", err)
			}
		}
	})
	return addresses[0], addresses[1]
}

func get(t *testing.T, method, url string) (status int, body, kind string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text), resp.Header.Get("Content-Type")
}

func TestPaths(t *testing.T) {
	control, open := serve(t, nil)
	for _, test := range []struct {
		method, url string
		want        int
	}{
		{"GET", control + "/metrics", 200},
		{"GET", control + "/healthz", 200},
		{"GET", control + "/v1/containers", 200},
		{"GET", control + "/", 404},
		{"POST", control + "/v1/containers", 405},
		{"GET", open + "/metrics", 200},
		{"GET", open + "/healthz", 200},
		{"GET", open + "/v1/containers", 404}, // not for everybody
		{"GET", open + "/v1/events", 404},
		{"POST", control + "/v1/events", 405},
		{"GET", open + "/v1/", 404},
		{"GET", open + "/metrics/../v1/containers", 404},
	} {
		if got, body, _ := get(t, test.method, test.url); got != test.want {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.url, got, test.want, body)
		}
	}
	if _, body, _ := get(t, "GET", open+"/healthz"); body != "ok\n" {
		t.Errorf("/healthz: %q", body)
	}
}

// TestMetrics: the names and labels of DESIGN's section 7, and none besides.
func TestMetrics(t *testing.T) {
	_, open := serve(t, nil)
	_, body, _ := get(t, "GET", open+"/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	must(t, err)
	got := make(map[string][]string)
	for name, family := range families {
		if !strings.HasPrefix(name, "callgate_") {
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("a metric named %s", name)
			}
			continue
		}
		labels := []string{family.GetType().String()}
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels[1:])
		got[name] = labels
	}
	want := map[string][]string{
		"callgate_requests_total":  {"COUNTER", "emulator", "outcome", "syscall"},
		"callgate_request_seconds": {"HISTOGRAM", "emulator", "syscall"},
		"callgate_listeners":       {"GAUGE"},
		"callgate_in_flight":       {"GAUGE"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("metrics are %v, want %v", got, want)
	}
	outcomes := make(map[string]float64)
	for _, m := range families["callgate_requests_total"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "outcome" {
				outcomes[l.GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if want := map[string]float64{"answered": 1, "denied": 1, "invalid": 0, "failed": 0, "gone": 0, "continued": 0}; !reflect.DeepEqual(outcomes, want) {
		t.Errorf("outcomes are %v, want %v", outcomes, want)
	}
	if n := families["callgate_listeners"].GetMetric()[0].GetGauge().GetValue(); n != 3 {
		t.Errorf("%v listeners, want 3", n)
	}
	if h := families["callgate_request_seconds"].GetMetric()[0].GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 1.001 {
		t.Errorf("%d calls took %v s", h.GetSampleCount(), h.GetSampleSum())
	}
}

func TestContainers(t *testing.T) {
	list := []Container{{ID: "c", UID: 5, Profile: "p", Listeners: 2, InFlight: 1, Calls: map[string]uint64{"answered": 7}}}
	control, _ := serve(t, list)
	_, body, kind := get(t, "GET", control+"/v1/containers")
	const want = `[{"id":"c","uid":5,"profile":"p","listeners":2,"inFlight":1,"calls":{"answered":7}}]` + "\n"
	if body != want || kind != "application/json" {
		t.Errorf("%s: %s, want %s", kind, body, want)
	}
	var back []Container
	must(t, json.Unmarshal([]byte(body), &back))
	if !reflect.DeepEqual(back, list) {
		t.Errorf("read again: %+v", back)
	}
}
