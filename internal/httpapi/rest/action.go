package rest

import (
	"net/http"
	"reflect"
)

// Action is what an endpoint does, with the types it takes and gives.
type Action struct {
	In, Out reflect.Type // nil: none
	Limit   int64        // of the body; 0: that of most
	Spare   bool         // the body can be left out
	Status  int
	Media   string // of an answer that is no JSON value
	Serve   func(*Call) error
}

// UpTo lets an action take larger bodies.
func (d Action) UpTo(limit int64) Action {
	d.Limit = limit
	return d
}

// Read makes an action of a function that needs no body.
func Read[Out any](f func(*Call) (Out, error)) Action {
	return Action{Out: reflect.TypeFor[Out](), Status: http.StatusOK, Serve: func(c *Call) error {
		v, err := f(c)
		if err != nil {
			return err
		}
		return c.Answer(http.StatusOK, v)
	}}
}

// Take makes an action of a function that takes a body.
func Take[In, Out any](status int, f func(*Call, In) (Out, error)) Action {
	return Action{In: reflect.TypeFor[In](), Out: reflect.TypeFor[Out](), Status: status, Serve: func(c *Call) error {
		in, err := Decode[In](c.Body)
		if err != nil {
			return err
		}
		v, err := f(c, in)
		if err != nil {
			return err
		}
		return c.Answer(status, v)
	}}
}

// TakeAny is Take for a body that can be left out.
func TakeAny[In, Out any](status int, f func(*Call, In) (Out, error)) Action {
	d := Take(status, f)
	whole := d.Serve
	d.Spare, d.Serve = true, func(c *Call) error {
		if len(c.Body) == 0 {
			c.Body = []byte("{}")
		}
		return whole(c)
	}
	return d
}

// Act makes an action of a function that has nothing to say when it succeeds.
func Act(status int, f func(*Call) error) Action {
	return Action{Status: status, Serve: func(c *Call) error {
		if err := f(c); err != nil {
			return err
		}
		c.W.WriteHeader(status)
		return nil
	}}
}

// Stream makes an action of a function that writes the answer itself.
func Stream(media string, f func(*Call) error) Action {
	return Action{Status: http.StatusOK, Media: media, Serve: f}
}
