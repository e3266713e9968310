package admin

import (
	"io"
	"net/http"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// route is one thing that administrators can ask for.
type route struct {
	method, path string
	action       access.Action
	success      int
	open         bool // answers anybody the same: nothing of the server's is behind it
	do           func(*call) ([]byte, error)
	stream       func(*call, io.Writer) error // instead of do
}

const (
	images      = "/v1/admin/images"
	image       = images + "/{image}"
	secret      = image + "/secrets/{secret}"
	revocations = "/v1/admin/revocations"
	audit       = "/v1/admin/audit"
	principals  = "/v1/admin/principals"
)

func (h *Handler) routes() []route {
	return []route{
		get("/v1/admin/status", access.ToView, h.status),

		get(images, access.ToView, h.images),
		send(http.MethodPost, images, access.ToRegister, http.StatusCreated, wire.MaxDocuments, h.register),
		get(image, access.ToView, h.documents),
		send(http.MethodPut, image, access.ToRegister, http.StatusOK, wire.MaxDocuments, h.replace),

		send(http.MethodPut, image+"/policy", access.ToRegister, http.StatusOK, wire.MaxDocuments, h.setPolicy),
		send(http.MethodPost, image+"/policy/test", access.ToView, http.StatusOK, wire.MaxDocuments, h.testPolicy),
		get(image+"/policies", access.ToView, h.policies),
		get(image+"/policies/{version}", access.ToView, h.policy),

		get(image+"/secrets", access.ToView, h.secrets),
		send(http.MethodPut, secret, access.ToRegister, http.StatusCreated, wire.MaxBody, h.putSecret),
		send(http.MethodPost, secret+"/rotation", access.ToRegister, http.StatusCreated, wire.MaxBody, h.rotate),
		send(http.MethodPost, secret+"/rotation/confirmation", access.ToRegister, http.StatusOK, wire.MaxBody, h.confirm),
		act(http.MethodDelete, secret+"/rotation", access.ToRegister, h.rollBack),

		get(revocations, access.ToView, h.revocations),
		send(http.MethodPost, revocations, access.ToRevoke, http.StatusCreated, wire.MaxBody, h.revoke),
		act(http.MethodDelete, revocations+"/{kind}/{value}", access.ToRevoke, h.unrevoke),

		get(audit, access.ToReadAudit, h.rows, "after", "limit", "image", "event", "class", "since", "until"),
		get(audit+"/key", access.ToReadAudit, h.auditKey),
		get(audit+"/checkpoint", access.ToReadAudit, h.lastCheckpoint),
		send(http.MethodPost, audit+"/checkpoint", access.ToReadAudit, http.StatusOK, wire.MaxBody, h.checkpoint),
		{method: http.MethodGet, path: audit + "/export", action: access.ToReadAudit, success: http.StatusOK, stream: h.export},

		get(principals, access.ToManage, h.principals),
		send(http.MethodPost, principals, access.ToManage, http.StatusCreated, wire.MaxBody, h.addPrincipal),
		act(http.MethodDelete, principals+"/{name}", access.ToManage, h.removePrincipal),

		{method: http.MethodGet, path: "/v1/admin/backup", action: access.ToBackUp, success: http.StatusOK, stream: h.backup},
	}
}

// get makes a route that only reads; its query may have these names.
func get[A any](path string, action access.Action, do func(*call) (A, error), query ...string) route {
	return route{method: http.MethodGet, path: path, action: action, success: http.StatusOK, do: func(c *call) ([]byte, error) {
		if err := c.noBody(query...); err != nil {
			return nil, err
		}
		return answer(do(c))
	}}
}

// act makes a route that changes something and whose request has no body.
func act[A any](method, path string, action access.Action, do func(*call) (A, error)) route {
	r := get(path, action, do)
	r.method = method
	return r
}

// send makes a route whose request is a message of at most most bytes.
func send[Q, A any](method, path string, action access.Action, success int, most int64, do func(*call, Q) (A, error)) route {
	return route{method: method, path: path, action: action, success: success, do: func(c *call) ([]byte, error) {
		q, err := read[Q](c, most)
		if err != nil {
			return nil, err
		}
		return answer(do(c, q))
	}}
}

func answer[A any](a A, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return wire.Encode(a)
}
