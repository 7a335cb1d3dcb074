// Package builder has the names that choria's command line wants of its application builder, and does nothing. That
// module cannot be had everywhere from the Go module proxy; `choria tool builder` is all that is lost without it.
package builder

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/choria-io/fisk"
)

// ErrAbsent is what everything here answers.
var ErrAbsent = errors.New("this choria was built without the application builder")

type (
	AppBuilder struct{ ctx context.Context }
	Option     func(*AppBuilder) error

	// Factory makes one kind of command from its definition.
	Factory = func(*AppBuilder, json.RawMessage, Logger) (Command, error)

	Command interface {
		CreateCommand(KingpinCommand) (*fisk.CmdClause, error)
		SubCommands() []json.RawMessage
		Validate(Logger) error
		String() string
	}

	KingpinCommand interface {
		Command(name, help string) *fisk.CmdClause
		Flag(name, help string) *fisk.FlagClause
	}

	Logger interface {
		Errorf(string, ...any)
		Warnf(string, ...any)
		Infof(string, ...any)
		Debugf(string, ...any)
	}

	GenericCommand     struct{ Name, Type string }
	GenericSubCommands struct{ Commands []json.RawMessage }
	GenericFlag        struct {
		Name, Description, PlaceHolder, EnvVar, Short string

		Enum           []string
		Default        any
		Required, Bool bool
	}

	Transform struct{}
)

func New(ctx context.Context, _ string, _ ...Option) (*AppBuilder, error) {
	return &AppBuilder{ctx}, nil
}
func (b *AppBuilder) Context() context.Context      { return b.ctx }
func (b *AppBuilder) Configuration() map[string]any { return nil }
func (b *AppBuilder) CreateBuilderApp(any)          {}

func WithConfigPaths(...string) Option   { return nil }
func WithContextualUsageOnError() Option { return nil }

func RegisterCommand(string, Factory) error { return nil }
func MustRegisterCommand(string, Factory)   {}

func RunTaskCLI(context.Context, bool, ...Option) error                  { return ErrAbsent }
func RunStandardCLI(context.Context, string, bool, any, ...Option) error { return ErrAbsent }

func CreateGenericCommand(app KingpinCommand, c *GenericCommand, _, _ map[string]any, _ *AppBuilder, _ func(*fisk.ParseContext) error) *fisk.CmdClause {
	return app.Command(c.Name, "")
}

func ParseStateTemplate(string, map[string]any, map[string]any, any) (string, error) {
	return "", ErrAbsent
}

func (*GenericCommand) Validate(Logger) error { return ErrAbsent }
func (*Transform) Validate(Logger) error      { return ErrAbsent }

func (*Transform) TransformBytes(context.Context, []byte, map[string]any, map[string]any, *AppBuilder) ([]byte, error) {
	return nil, ErrAbsent
}
