-- wrk's side: posts snapshots of many cases by turns, each newer than the one before of its case.
-- Arguments: a template with @CASE@, @TIME@ and @STEP@, cases a thread, requests a second of a
-- connection (0: as fast as answers come), then header names and values in turn.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  template = file:read("*a")
  file:close()
  cases = tonumber(args[2])
  pause = tonumber(args[3])
  wrk.method = "POST"
  for i = 4, #args, 2 do
    wrk.headers[args[i]] = args[i + 1]
  end
  step = 0
end

function request()
  step = step + 1
  local case = string.format("%08x-0000-4000-8000-%012x", number, step % cases)
  local seconds = math.floor(step / 1000)
  local time = string.format("2026-%02d-%02dT%02d:%02d:%02d.%06dZ",
    1 + math.floor(seconds / 2419200) % 12, 1 + math.floor(seconds / 86400) % 28,
    math.floor(seconds / 3600) % 24, math.floor(seconds / 60) % 60, seconds % 60, step % 1000)
  local body = template:gsub("@CASE@", case):gsub("@TIME@", time):gsub("@STEP@", tostring(step))
  return wrk.format(nil, nil, nil, body)
end

-- Half to one and a half times the pause, so that connections do not march in step.
function delay()
  if pause == 0 then return 0 end
  return math.floor(1000 / pause * (0.5 + math.random()))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
