# Runs setup, then run, in the task's own surroundings. $1 shell, $2 folder of the scripts, $3 work folder, $4 setup or "".
. /proc/self/fd/8
exec 8<&-
cd "$3" || exit 126
if [ -n "$4" ]; then
  "$1" "$2/setup.sh" 5>&- || exit
fi
echo run >&5
exec "$1" "$2/run.sh" 5>&-
