#!/bin/bash
# Prepares a RabbitMQ for Shepherd: a virtual host, three users with what each needs, the recommended policy.
#
#   sudo deploy/rabbitmq/setup.sh
#
# On any one node of a cluster. Called again, it puts permissions and policy right and leaves passwords alone. It prints
# the URL of each user that it has made; a password is shown this once.
#
# ADDRESS: how clients reach the broker. VHOST: the virtual host. RABBITMQCTL: what runs rabbitmqctl.
set -euo pipefail
vhost="${VHOST:-shepherd}"
address="${ADDRESS:-$(hostname):5672}"
read -ra ctl <<<"${RABBITMQCTL:-rabbitmqctl}"

main() {
    "${ctl[@]}" -q list_vhosts name | grep -qx "$vhost" || "${ctl[@]}" -q add_vhost "$vhost"

    # The Task Publisher declares everything under `shepherd.`.
    user shepherd-publisher '^(shepherd\..*|amq\.gen-.*)$' '^(amq\.default|shepherd\..*|amq\.gen-.*)$' \
        '^(shepherd\..*|amq\.gen-.*)$'

    # Workers declare nothing but the queue by which they listen, and listen only to what is for workers.
    user shepherd-worker '^amq\.gen-.*$' '^(amq\.default|shepherd\.dead|amq\.gen-.*)$' \
        '^(shepherd\.task\..*|shepherd\.control|amq\.gen-.*)$'
    "${ctl[@]}" -q set_topic_permissions -p "$vhost" shepherd-worker shepherd.control '^$' '^worker\.'

    # The web server wakes the Task Publisher.
    user shepherd-web '^$' '^shepherd\.control$' '^$'
    "${ctl[@]}" -q set_topic_permissions -p "$vhost" shepherd-web shepherd.control '^publisher\.wake$' '^$'

    # 1 GiB a task's queue. What doesn't fit waits in the database.
    "${ctl[@]}" -q set_policy -p "$vhost" --apply-to queues shepherd-tasks '^shepherd\.task\.' \
        '{"max-length-bytes":1073741824}'

    "${ctl[@]}" -q list_users | grep -q '^guest\b' &&
        echo "The user guest is still there; without other users of this broker: rabbitmqctl delete_user guest"
    return 0
}

# Makes a user if there is none of this name, and sets what it may do: NAME CONFIGURE WRITE READ
user() {
    if ! "${ctl[@]}" -q list_users | cut -f1 | grep -qx "$1"; then
        local password
        password="$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')"
        # By standard input: others on this machine can read a command line. Not with -q: RabbitMQ 4.0 then waits for
        # a terminal.
        timeout 60 "${ctl[@]}" add_user "$1" <<<"$password" >/dev/null
        echo "amqp://$1:$password@$address/$vhost"
    fi
    "${ctl[@]}" -q set_permissions -p "$vhost" "$1" "$2" "$3" "$4"
}

main
