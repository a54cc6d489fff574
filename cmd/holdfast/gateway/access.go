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
