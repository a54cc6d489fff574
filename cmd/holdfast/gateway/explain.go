package gateway

import (
	"holdfast/bridge"
	"holdfast/configs"
)

// Explanation is what one bridge would do with a message.
type Explanation struct {
	Bridge string
	Routes []RouteExplanation // that match; the first owns it
	// Bytes is about what one message costs on the way to the first upstream, and
	// Plan the data plan there; 0 is none.
	Bytes int
	Plan  int64
}

// RouteExplanation is what one route would do with it.
type RouteExplanation = bridge.Explanation

// Explain says what every bridge of a resolved configuration would do with
// messages of a local topic, whose payload has size bytes.
func Explain(cfg *configs.Config, name string, size int) (list []Explanation) {
	for _, b := range cfg.Bridges {
		var routes []bridge.Route
		for _, r := range b.Routes {
			routes = append(routes, route(r))
		}
		e := Explanation{Bridge: b.Name, Routes: bridge.Explain(routes, name)}
		if len(b.Upstreams) > 0 {
			e.Plan = int64(b.Upstreams[0].DataPlan)
			if m := cfg.ModemOf(b.Upstreams[0]); m != nil {
				e.Plan = int64(m.DataPlan)
			}
		}
		if len(e.Routes) > 0 {
			first := e.Routes[0]
			e.Bytes = bridge.WireSize(len(first.Remote), first.Encoding.Size(size), first.QoS, len(b.Upstreams) > 0 && b.Upstreams[0].TLS())
		}
		list = append(list, e)
	}
	return list
}
