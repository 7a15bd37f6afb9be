#!/bin/sh
# Runs Alertmanager with the mail settings of the environment:
#   sh configs/alertmanager/start.sh prometheus-alertmanager --storage.path=…
# Needs nothing but a POSIX shell and awk, so that it runs in Alertmanager's own image too.
#
#   SERVE_APP_SMTP_HOST      host:port of the mail server
#   SERVE_APP_MAIL_FROM      the sender
#   SERVE_APP_MAIL_TO        the receivers, separated by commas
#   SERVE_APP_SMTP_USER      optional: without it, no log-in
#   SERVE_APP_SMTP_PASSWORD  or SERVE_APP_SMTP_PASSWORD_FILE, for that user
#   SERVE_APP_SMTP_TLS       true (default) or false: whether a server without STARTTLS is refused
set -eu

: "${SERVE_APP_SMTP_HOST:?is the host:port of the mail server}"
: "${SERVE_APP_MAIL_FROM:?is the sender of the mails}"
: "${SERVE_APP_MAIL_TO:?is who gets the mails}"
SERVE_APP_SMTP_TLS=${SERVE_APP_SMTP_TLS:-true}
case $SERVE_APP_SMTP_TLS in
true | false) ;;
*) echo "SERVE_APP_SMTP_TLS: true or false" >&2 && exit 2 ;;
esac

umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if [ -z "${SERVE_APP_SMTP_PASSWORD_FILE:-}" ]; then
    SERVE_APP_SMTP_PASSWORD_FILE=$folder/password
    printf %s "${SERVE_APP_SMTP_PASSWORD:-}" >"$SERVE_APP_SMTP_PASSWORD_FILE"
fi
unset SERVE_APP_SMTP_PASSWORD
HERE=$(cd "$(dirname "$0")" && pwd)
export HERE SERVE_APP_SMTP_HOST SERVE_APP_MAIL_FROM SERVE_APP_MAIL_TO SERVE_APP_SMTP_TLS SERVE_APP_SMTP_PASSWORD_FILE

# Each ${NAME} becomes the variable's value as a quoted YAML string, but for true and false; a comment stays as it is.
awk '
    !/^ *#/ {
        while (match($0, /\$\{[A-Z_]+\}[^ ]*/)) {
            whole = substr($0, RSTART, RLENGTH)
            end = index(whole, "}")
            value = ENVIRON[substr(whole, 3, end - 3)] substr(whole, end + 1)
            if (value != "true" && value != "false") {
                gsub(/'\''/, "'\'\''", value)
                value = "'\''" value "'\''"
            }
            done = done substr($0, 1, RSTART - 1) value
            $0 = substr($0, RSTART + RLENGTH)
        }
        $0 = done $0
        done = ""
    }
    { print }
' "$HERE/alertmanager.yml" >"$folder/alertmanager.yml"

"$@" --config.file="$folder/alertmanager.yml" &
alertmanager=$!
trap 'kill "$alertmanager"' TERM INT
status=0
wait "$alertmanager" || status=$?
while kill -0 "$alertmanager" 2>/dev/null; do # a signal ends `wait`, not Alertmanager
    status=0
    wait "$alertmanager" || status=$?
done
exit "$status"
