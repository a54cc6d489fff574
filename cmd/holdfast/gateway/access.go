package gateway

import (
	"holdfast/configs"
	"holdfast/edge"
)

// access is who may connect, as the broker has it.
func access(cfg *configs.Config) (edge.Anonymous, []edge.User) {
	users := make([]edge.User, 0, len(cfg.Access.Users))
	for _, u := range cfg.Access.Users {
		users = append(users, edge.User{Name: u.Name, Password: u.Password.Reveal(), Publish: u.Publish, Subscribe: u.Subscribe})
	}
	return edge.Anonymous(cfg.Access.Anonymous), users
}

// Reload takes over [access] of another configuration, which must be valid and
// resolved, and disconnects the clients that it does not let in any more. Nothing
// else changes before the next start, which the log says. An error leaves all as
// it was.
func (g *Gateway) Reload(cfg *configs.Config) error {
	if err := g.users.Set(access(cfg)); err != nil {
		return err
	}
	g.broker.ReviewAccess()
	g.log.Info("configuration read again", "users", len(cfg.Access.Users), "anonymous", cfg.Access.Anonymous)
	if g.cfg.DiffersBesideAccess(cfg) {
		g.log.Warn("only [access] is taken over while the gateway runs: restart it for the other changes")
	}
	return nil
}
