//! Keeps a script inside its release's grants and bounds. A script is Lua, and Lua may compute any key while
//! it runs, so the keys that its caller declares are no protection. The host therefore puts a prelude before
//! the script's text. The prelude gives the script another `redis`, which checks every command and every key
//! with the same table as commands of handlers. The prelude also:
//!
//! - puts the prefix of the fleet before every key, so that a script knows only the names that its handler
//!   uses;
//! - counts commands, bytes and the steps of loops (`steps`), and ends the script at a bound.
//!
//! Pure. A user with access lists of Redis would do the same in the server. But it needs a connection for
//! each handler, and permissions that a hosted Redis does not give.

use std::fmt::Write;

use super::bounds;
use super::keys::commands;
use super::steps::counted;
use switchboard_core::limits;
use switchboard_core::manifest::Pattern;

/// Returns the prelude followed by the script. The prelude knows only the commands whose names the text
/// contains: it runs at every call, and a table of all commands would take longer than most scripts. The
/// caller sends the prefix of keys as the last of `ARGV`, and `KEYS` with that prefix. The script sees
/// neither.
pub(super) fn with_prelude(text: &str, grants: &[Pattern]) -> String {
    let upper = text.to_ascii_uppercase();
    let mut keyed = String::new();
    for (name, how) in commands().filter(|(name, _)| upper.contains(name)) {
        let _ = write!(keyed, "{name}={},", bounds::code(name, how));
    }
    let (mut prefixes, mut exact) = (String::new(), String::new());
    for grant in grants {
        match grant.as_str().strip_suffix('*') {
            Some(prefix) => {
                let _ = write!(prefixes, "{},", quoted(prefix));
            }
            None => {
                let _ = write!(exact, "[{}]=true,", quoted(grant.as_str()));
            }
        }
    }
    // The prelude is one line, so that an error of a script names the line of its own text.
    let prelude: Vec<&str> = PRELUDE.lines().map(str::trim).collect();
    let mut prelude = prelude.join(" ");
    for (name, bound) in [
        ("STEPS_MAX", limits::REDIS_SCRIPT_STEPS_MAX),
        ("COMMANDS_MAX", limits::REDIS_SCRIPT_COMMANDS_MAX),
        ("BYTES_MAX", limits::REDIS_SCRIPT_BYTES_MAX),
        ("MS_MAX", limits::REDIS_SCRIPT_CPU_MAX.as_millis() as u64),
        ("MEMBERS_MAX", limits::REDIS_RANDOM_MEMBERS_MAX),
        ("SETS_MAX", limits::REDIS_SETS_MAX as u64),
    ] {
        prelude = prelude.replace(name, &bound.to_string());
    }
    format!(
        "{prelude}(redis,{{{keyed}}},{{{prefixes}}},{{{exact}}},KEYS,ARGV,pcall(function() return os.clock end)) {CLOSED} {}",
        counted(text)
    )
}

/// Escapes every byte that could have a meaning in a Lua string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'-' | b'{' | b'}' | b'.' => {
                quoted.push(byte.into());
            }
            other => {
                let _ = write!(quoted, "\\{other:03}");
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Hides every name that leads back to the real `redis`.
const CLOSED: &str =
    "local server,_G,getfenv,setfenv,load,loadstring,loadfile,dofile,require,module,package,debug=redis;";

/// The prelude. `how` has three digits, see `bounds::code`. The bounds are replaced by name. Not every
/// version of Redis has `os.clock`; without it, only the steps are bounded.
///
/// Do not change the text. A recording can contain the hash of prelude and script, which Redis puts into
/// errors.
const PRELUDE: &str = r##"
local redis,KEYS,ARGV,switchboard_step=(function(real,keyed,prefixes,exact,KEYS,ARGV,has_clock,clock)
local sub,upper,floor,select,tonumber,tostring,type,error,unpack=string.sub,string.upper,math.floor,select,tonumber,tostring,type,error,unpack
local prefix=ARGV[#ARGV] ARGV[#ARGV]=nil
local keys={} for i=1,#KEYS do keys[i]=sub(KEYS[i],#prefix+1) end
if not has_clock then clock=function() return 0 end end
local steps,commands,bytes,began=0,0,0,clock()
local function step()
steps=steps+1
if steps>STEPS_MAX then error("the script was ended: it took more than STEPS_MAX steps or MS_MAX ms",0) end
if steps%256==0 and (clock()-began)*1000>MS_MAX then steps=STEPS_MAX step() end
end
local function may(key)
if type(key)=="number" then key=tostring(key) end
if exact[key] then return prefix..key end
for i=1,#prefixes do local granted=prefixes[i] if sub(key,1,#granted)==granted then return prefix..key end end
error("the key `"..key.."` is not granted",0)
end
local function look(name,...)
name=upper(tostring(name))
local how=keyed[name]
if not how then error("`"..name.."` is not a command for scripts of handlers",0) end
step() commands=commands+1
if commands>COMMANDS_MAX then error("the script was ended: it ran more than COMMANDS_MAX commands",0) end
local words,count={...},select("#",...)
for i=1,count do if type(words[i])=="string" then bytes=bytes+#words[i] end end
local first,last,stride,keys_are,excess=1,0,1,how%10,floor(how/10)%10
if keys_are==1 then last=1
elseif keys_are==2 then last=2
elseif keys_are==3 then last=count
elseif keys_are==4 then last=count stride=2
elseif keys_are==5 then first=2 last=1+(tonumber(words[1]) or count)
elseif keys_are==7 then
local at=1 while at<=count and upper(tostring(words[at]))~="STREAMS" do at=at+1 end
first=at+1 last=at+(count-at)/2
end
if last>count then error("`"..name.."` does not have its keys where they belong",0) end
if excess==1 or excess==2 then
local offset=tonumber(words[2]) or 0
if excess==2 then offset=offset/8 end
if not (offset<=BYTES_MAX) then error("an offset of `"..name.."` is at most BYTES_MAX bytes",0) end
if offset>0 then bytes=bytes+offset end
elseif excess==3 then
local many=tonumber(words[2]) or 0
if not (many<=MEMBERS_MAX and many>=-MEMBERS_MAX) then error("`"..name.."` answers with at most MEMBERS_MAX members",0) end
elseif excess==4 and last-first>=SETS_MAX then error("`"..name.."` has at most SETS_MAX keys",0)
end
if not (bytes<=BYTES_MAX) then error("the script was ended: its commands have more than BYTES_MAX bytes",0) end
for i=first,last,stride do words[i]=may(words[i]) end
return how,name,unpack(words,1,count)
end
local function known(how,reply)
if how<100 or type(reply)~="table" or reply.err then return reply end
if how<200 then reply[1]=sub(reply[1],#prefix+1)
else for i=1,#reply do reply[i][1]=sub(reply[i][1],#prefix+1) end end
return reply
end
local function call(how,...) return known(how,real.call(...)) end
local function pcall(how,...) return known(how,real.pcall(...)) end
return {
call=function(...) return call(look(...)) end,
pcall=function(...) return pcall(look(...)) end,
error_reply=real.error_reply,status_reply=real.status_reply,sha1hex=real.sha1hex,
log=function() end,LOG_DEBUG=0,LOG_VERBOSE=1,LOG_NOTICE=2,LOG_WARNING=3,
replicate_commands=function() return true end
},keys,ARGV,step
end)
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_its_lines_and_knows_the_commands_that_it_names() {
        let grants: Vec<Pattern> =
            ["rate:*", "it's"].map(|text| serde_json::from_value(text.into()).unwrap()).into();
        let text = "-- a counter\nreturn redis.call('incr', KEYS[1])";
        let whole = with_prelude(text, &grants);
        assert!(whole.ends_with(text), "{whole}");
        for name in ["STEPS_MAX", "COMMANDS_MAX", "BYTES_MAX", "MS_MAX", "MEMBERS_MAX", "SETS_MAX"] {
            assert!(!whole.contains(name), "{name}");
        }
        assert_eq!(whole.lines().count(), 2);
        assert!(whole.contains("INCR=1,") && !whole.contains("HSET="), "{whole}");
        assert!(whole.contains(r#"{"rate:",},{["it\039s"]=true,}"#), "{whole}");
    }
}
