package control

import (
	"net/http"

	"github.com/callgate/callgate/agent/internal/events"
)

// stream is GET /v1/events[?container=ID]: a line for each call, until the
// client goes or the hub is closed. A client that does not read keeps its
// place, without a deadline: it may be an operator's pager.
func stream(hub *events.Hub) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sub, err := hub.Subscribe(r.URL.Query().Get("container"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer sub.Close()
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := http.NewResponseController(w)
		// The answer's head says that what happens from now on will be told.
		err = out.Flush()
		for err == nil {
			err = next(w, r, out, sub)
		}
		// The client is gone, or the agent ends: nobody to tell.
	}
}

// next passes one event on.
func next(w http.ResponseWriter, r *http.Request, out *http.ResponseController, sub *events.Subscription) error {
	e, err := sub.Next(r.Context())
	if err != nil {
		return err
	}
	line, err := e.Line()
	if err != nil {
		return err
	}
	if _, err := w.Write(line); err != nil {
		return err
	}
	if sub.More() {
		return nil // it brings this one along: a burst is not a write(2) for each
	}
	return out.Flush()
}
