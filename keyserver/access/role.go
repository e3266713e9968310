package access

import (
	"errors"
	"fmt"
	"strings"
)

// Roles is a set of roles.
type Roles uint8

// The roles. The zero value allows nothing.
const (
	Register Roles = 1 << iota
	Release
	Audit
	Admin
)

var roleNames = []struct {
	role Roles
	name string
}{{Register, "register"}, {Release, "release"}, {Audit, "audit"}, {Admin, "admin"}}

// Action is what somebody wants to do. The zero value is nothing that anybody may do.
type Action uint8

// The actions.
const (
	ToRegister  Action = iota + 1 // register images, their versions, policies and secrets
	ToRevoke                      // revoke an image, a digest, a chip, a secret
	ToView                        // list images, policies and launches, and test a policy; never a secret
	ToReadAudit                   // list, verify and export the audit
	ToRelease                     // ask for sessions and releases, as a host
	ToManage                      // add and remove principals
	ToBackUp                      // back up and restore the store
)

// allowed gives the roles of which one is enough.
var allowed = map[Action]Roles{
	ToRegister:  Register | Admin,
	ToRevoke:    Register | Admin,
	ToView:      Register | Audit | Admin,
	ToReadAudit: Audit | Admin,
	ToRelease:   Release,
	ToManage:    Admin,
	ToBackUp:    Admin,
}

// May says whether one of the roles allows the action.
func (r Roles) May(a Action) bool { return r&allowed[a] != 0 }

// ErrRoles says that a text is no list of roles.
var ErrRoles = errors.New("roles are one or more of register, release, audit, admin, with commas between")

// ParseRoles reads a list like "register,audit". Each role stands there once.
func ParseRoles(s string) (Roles, error) {
	var roles Roles
	for name := range strings.SplitSeq(s, ",") {
		role := roleNamed(name)
		if role == 0 || roles&role != 0 {
			return 0, fmt.Errorf("%w: not %.64q", ErrRoles, s)
		}
		roles |= role
	}
	return roles, nil
}

func roleNamed(name string) Roles {
	for _, r := range roleNames {
		if r.name == name {
			return r.role
		}
	}
	return 0
}

// String gives the list that ParseRoles reads.
func (r Roles) String() string {
	var names []string
	for _, known := range roleNames {
		if r&known.role != 0 {
			names = append(names, known.name)
		}
	}
	return strings.Join(names, ",")
}

// valid says whether there is a role, and no other bit.
func (r Roles) valid() bool { return r != 0 && r&^(Register|Release|Audit|Admin) == 0 }
