package bridge

import (
	"log/slog"
	"strings"

	"holdfast"
	"holdfast/edge/packet"
)

// Between brokers of MQTT 5 a message says which gateways it has passed
// (holdfast.PropertyVia), so that a circle of several gateways ends where it closes:
//
//   - the broker of a gateway says in CONNACK which one it is, and what is sent to it
//     or comes from it names both ends of the way;
//   - where there is another broker between gateways, whatever has come over a bridge
//     names the gateways from the second bridge on;
//   - what the far gateway has passed is not sent to it, and what comes down after
//     this one has passed it goes nowhere: both are counted as loops. The local
//     broker does the same with what is sent to it (edge.Options.GatewayID);
//   - nor are the states of the far gateway's own bridges, which only it knows.
//
// A message that was published here, and goes to a broker that is no gateway, is sent
// as it is.

// reasonLoop is why a message is dropped that the far gateway has had.
const reasonLoop = "loop"

// gatewayed is implemented by an Upstream that knows which gateway the far broker
// belongs to; "" if to none.
type gatewayed interface{ Gateway() string }

// Gateway is described at gatewayed.
func (u *client) Gateway() string { return u.gateway }

// meet notes which gateway the far broker says it belongs to. If that has the id of
// this one, nothing can be told by it.
func (u *client) meet(p *packet.Properties, own string) {
	if p == nil {
		return
	}
	for _, said := range p.Message.User {
		if said.Name == holdfast.PropertyGateway {
			u.gateway = said.Value
		}
	}
	if u.gateway != "" && u.gateway == own {
		u.log.Error("the far gateway has the id of this one: give each an id of its own in [gateway]", slog.String("id", own))
		u.gateway = ""
	}
}

// via puts the way of it into its message. circles: the far gateway has had it.
func (c *connection) via(it *holdfast.Item) (circles bool) {
	m := it.Msg
	switch {
	case !c.props || c.b.gateway == "":
	case m.Passed(c.far), c.far != "" && strings.HasPrefix(m.Topic, "holdfast/"+c.far+"/bridge/"):
		return true
	case c.far != "" || m.Travelled() || strings.HasPrefix(m.Origin, holdfast.BridgeOrigin("")):
		it.Msg = m.Via(c.b.gateway)
	}
	return false
}
