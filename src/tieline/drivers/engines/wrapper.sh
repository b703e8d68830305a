# Starts one node of a run, outlives the site process, and writes how it ended. POSIX sh; nothing here is secret.
# Settings stand above. Descriptors: 3 this text, 6 and 7 the ends of the log's pipe, 8 the environment, 9 a sandbox's
# filter. Few files are made: on a busy disk each one costs as much as a process.
exec 3<&-
umask 077
caught='HUP INT QUIT TERM USR1 USR2 ALRM'
trap : $caught # signals are for the task; a subshell gets the defaults back

# The one who creates this file runs the task: a second wrapper for the same folder leaves without a trace.
read -r stat <"/proc/$$/stat"
set -- ${stat##*) }
set -C
printf '{"pid":%d,"start_ticks":%d}\n' "$$" "${20}" 2>/dev/null >"$folder/identity" || exit 0
set +C

# The log is cut by the kernel at the copier's own file size limit; tee goes on reading, so nobody blocks.
(
  trap '' $caught PIPE XFSZ
  ulimit -f "$log_blocks"
  exec tee -a "$folder/log" <&6 >/dev/null 2>&1 6<&- 7>&- 8<&- 9<&-
) &
copier=$!
exec 6<&-
watchdog=

members() { # prints the processes of the task; of a sandbox without a cgroup its init, which takes all with it
  if [ -n "$contained" ]; then # nothing outlives the container, and its client ends with it
    return
  elif [ -n "$group" ]; then
    while read -r pid; do [ "$pid" -le 1 ] || echo "$pid"; done <"$group/cgroup.procs" # 0: not of our process space
  elif [ -n "$sandboxed" ]; then
    init=
    while read -r key value; do
      [ "$key" != '"child-pid":' ] || init=${value%,}
    done <"$folder/sandbox"
    while read -r key value; do # a number that came round again is not ours: inside, the init is number 1
      case $key$value in
        State:Z*) return ;;
        NSpid:*[!0-9]1) echo "$init" ;;
      esac
    done <"/proc/$init/status"
  else
    read -r self stat </proc/self/stat
    for path in /proc/[0-9]*; do
      read -r stat <"$path/stat" || continue
      set -- ${stat##*) } # state, parent, group, session
      [ "$4" = "$$" ] && [ "$1" != Z ] && [ "$2" != "${watchdog:-none}" ] || continue
      case " $$ $copier $watchdog $self " in *" ${path#/proc/} "*) ;; *) echo "${path#/proc/}" ;; esac
    done
  fi
} 2>/dev/null

terminate_members() {
  { read -r stat; read -r task; } <"$folder/identity"
  if [ -n "$contained" ]; then
    container kill --signal TERM "$contained" >/dev/null || kill -TERM "$task" # its image may still be on the way
  fi
  for pid in $(members); do
    if [ -z "$sandboxed" ] || { [ -n "$group" ] && [ "$pid" != "$task" ]; }; then
      kill -TERM "$pid"
    elif [ -z "$group" ]; then
      read -r inside <"/proc/$pid/task/$pid/children" && kill -TERM $inside
    fi # the sandbox's own outer process stays: it tells the exit code
  done
} 2>/dev/null

kill_members() {
  [ -z "$contained" ] || container kill --signal KILL "$contained" >/dev/null
  round=0
  while [ "$round" -lt 200 ] && left=$(members) && [ -n "$left" ]; do
    for pid in $left; do kill -KILL "$pid"; done
    round=$((round + 1))
    [ "$round" -lt 20 ] || sleep 0.05
  done
} 2>/dev/null

end_in_time() { # the time limit holds while the site process is away
  read -r watchdog stat </proc/self/stat
  trap '' HUP INT QUIT USR1 USR2 ALRM
  nap=
  trap '[ -z "$nap" ] || kill "$nap"; exit 0' TERM # the run ended first
  sleep "$duration_s" &
  nap=$!
  wait "$nap"
  nap=
  printf time >"$folder/limit"
  printf '%d\n' "$grace_s" >"$folder/stopping"
  terminate_members
  sleep "$grace_s" &
  nap=$!
  wait "$nap"
  nap=
  kill_members
}
if [ "$duration_s" -gt 0 ]; then
  end_in_time </dev/null >/dev/null 2>&1 6<&- 7>&- 8<&- 9<&- &
  watchdog=$!
fi

phase_file=/dev/null
[ -z "$has_setup" ] || phase_file=$folder/phase
(
  read -r pid stat </proc/self/stat
  echo "$pid" >>"$folder/identity"
  for path in $groups; do
    echo 0 >"$path/cgroup.procs" || exit 126
  done
  ulimit -c 0
  [ "$file_blocks" -eq 0 ] || ulimit -f "$file_blocks" || exit 126
  [ "$memory_kib" -eq 0 ] || ulimit -v "$memory_kib" || exit 126
  [ "$processes" -eq 0 ] || ulimit -u "$processes" 2>/dev/null || ulimit -p "$processes" || exit 126
  umask 022
  enter
) </dev/null >&7 2>&7 7>&- 5>"$phase_file"
code=$?

if [ -e "$folder/stopping" ]; then # whoever asked it to stop promised the rest of the group this many seconds
  read -r grace <"$folder/stopping"
  tenths=$(((${grace:-0} + 2) * 10))
  while [ "$tenths" -gt 0 ] && [ -n "$(members)" ]; do
    sleep 0.1
    tenths=$((tenths - 1))
  done
  kill_members
elif [ -n "$group" ]; then
  ! read -r pid <"$group/cgroup.procs" || kill_members
elif [ -n "$sandboxed" ]; then
  kill_members
fi # containers take all with them; else the engine looks: it need not read all of /proc for that
[ -z "$watchdog" ] || kill -TERM "$watchdog" 2>/dev/null
if [ -n "$contained" ] && [ "$code" -ne 0 ]; then
  if [ -e "$folder/oom" ]; then # podman's monitor saw the kernel kill; some podmans look for this note elsewhere
    echo true >"$folder/oom"
  elif [ "$code" -gt 128 ]; then
    container inspect --format '{{.State.OOMKilled}}' "$contained" >"$folder/oom" 2>/dev/null
  fi
fi
times >>"$folder/identity"
{ read -r pid; read -r pid; read -r user; read -r user system; } <"$folder/identity"
phase=run
[ -z "$has_setup" ] || { read -r phase <"$folder/phase" && [ "$phase" = run ]; } || phase=setup
# One write into space that was set aside: it is there whole or not at all, and a full disk does not lose it.
printf '{"exit_code":%d,"phase":"%s","user":"%s","system":"%s"}\n' "$code" "$phase" "$user" "$system" 1<>"$folder/exit"
exec 7>&-
[ -z "$contained" ] || container rm --force "$contained" >/dev/null 2>&1
if ! wait "$copier" && [ "$(wc -c <"$folder/log")" -ge $((log_blocks * 512)) ]; then
  printf '\n[tieline] the log is cut here, at its limit of %d bytes\n' $((log_blocks * 512)) >>"$folder/log"
fi
