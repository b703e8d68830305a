# The mean of each furnace, and the hottest.
BEGIN { FS = "," }
NR > 1 { sum[$1] += $2; count[$1] += 1 }
END {
  for (name in sum) {
    mean = sum[name] / count[name]
    if (mean > most) { most = mean; hottest = name }
  }
  printf "furnace %s is the hottest: %.1f C of %d readings\n", hottest, most, NR - 1
}
