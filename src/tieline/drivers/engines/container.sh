# Process 1 of a container: reads the environment from standard input, runs setup, then run, and hands signals on to
# everything inside. $1 folder of the scripts, $2 work folder, $3 setup or "", $4 where to hand signals on, else "".
. /dev/stdin
exec </dev/null
cd "$2" || exit 126
folder=$1 has_setup=$3 is_first=$4 stopping=
[ $$ = 1 ] || is_first= # in the machine's own process space, everything would be everybody's
if [ -x /bin/bash ]; then shell=/bin/bash; else shell=/bin/sh; fi

catches() { # whether process $1 catches the signal with number $2
  while read -r key value; do
    [ "$key" != SigCgt: ] || { [ $((0x$value >> ($2 - 1) & 1)) = 1 ]; return; }
  done <"/proc/$1/status"
  return 1
} 2>/dev/null

hand_on() { # $1 signal; $2 its number, where only those that catch it shall get it
  for path in /proc/[0-9]*; do
    pid=${path#/proc/}
    [ "$pid" = 1 ] || [ "$pid" = $$ ] || { [ -n "$2" ] && ! catches "$pid" "$2"; } || kill -"$1" "$pid"
  done
} 2>/dev/null

others() { # whether anything else lives in here
  for path in /proc/[0-9]*; do
    pid=${path#/proc/}
    [ "$pid" != 1 ] && [ "$pid" != $$ ] && read -r stat <"$path/stat" || continue
    case ${stat##*) } in Z*) ;; *) return 0 ;; esac
  done
  return 1
} 2>/dev/null

# Where memory ends, the kernel kills the biggest; often once more while the first one's memory is on its way back, and
# then all are small. The number, over a thousand, counts as so much of the limit: process 1 must live to tell.
go_before_us() {
  read -r adj </proc/self/oom_score_adj && [ "$adj" -ge 500 ] || echo 500 >/proc/self/oom_score_adj
} 2>/dev/null

tell_memory() { # an outside observer may come too late: the kernel's count goes with the container
  for path in /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events; do
    while read -r key value; do
      [ "$key" != oom_kill ] || [ "$value" = 0 ] || echo oom >>"$folder/phase"
    done <"$path"
  done
} 2>/dev/null

step() { # runs script $1 to its end, whatever signals arrive meanwhile
  { go_before_us; exec "$shell" "$folder/$1"; } &
  child=$!
  code=
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  wait "$child" 2>/dev/null
  late=$?
  [ "$late" -eq 127 ] || code=$late
  if [ -n "$stopping" ]; then # the others have their grace
    while others && sleep 0.1; do :; done
  fi
  [ "$code" -eq 0 ] || tell_memory # also where a part was killed and the rest noticed
  return "$code"
}

if [ -z "$is_first" ]; then # somebody else hands signals on
  if [ -n "$has_setup" ]; then "$shell" "$folder/setup.sh" || exit; fi
  echo run >"$folder/phase"
  exec "$shell" "$folder/run.sh"
fi
trap 'stopping=yes; hand_on TERM' TERM INT
trap 'hand_on HUP' HUP
trap 'hand_on USR1 10' USR1
trap 'hand_on USR2 12' USR2
if [ -n "$has_setup" ]; then
  step setup.sh || exit
  [ -z "$stopping" ] || exit 143
fi
echo run >"$folder/phase"
step run.sh
