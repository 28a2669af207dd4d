-- The conversation is called like its class, and is archived with it: $1 class
update app.conversations as conversation set
  name = class.name, archived_at = class.archived_at, updated_at = class.updated_at
from app.classes as class
where class.id = $1::uuid and conversation.id = class.conversation_id
